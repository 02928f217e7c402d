//! A relay of one's own, as `relays = ["http://…"]` names it: for `scripts/suite-paths`, and to try
//! one out. It takes in everybody, so keep it inside a network that you trust.
//!
//! usage: `relay ADDRESS:PORT`

use std::net::SocketAddr;

use anyhow::Context;
use iroh_relay::server::{RelayConfig, Server, ServerConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("usage: relay ADDRESS:PORT")?;
    let address: SocketAddr = address.parse().with_context(|| address.clone())?;
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(address));
    let server = Server::spawn(config).await?;
    println!("http://{}", server.http_addr().context("it listens nowhere")?);
    std::future::pending().await
}
