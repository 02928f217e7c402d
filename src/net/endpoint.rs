//! This device on the network: where it listens, whom it dials.

use std::net::SocketAddr;

use iroh::endpoint::{Incoming, PortmapperConfig, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, RelayUrl, SecretKey};
use iroh_mdns_address_lookup::MdnsAddressLookup;

use super::link::Link;
use super::{ALPN, NetError};
use crate::types::limits::{ADDRESSES_MAX, ANSWERS_MAX};
use crate::types::{Addresses, DeviceId};

/// By what name devices find each other on a local network.
const LAN_SERVICE: &str = "tidefs";

/// How this device is on the network.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// Where to listen; none: on any interface, at any port.
    pub bind: Vec<SocketAddr>,
    /// The relays to use; none: no relay is contacted.
    pub relays: Vec<String>,
    /// Announce this device on the local network, and look for others there.
    pub lan_discovery: bool,
}

/// The endpoint. Cheap to clone; [`Net::close`] closes all clones.
#[derive(Clone, Debug)]
pub struct Net {
    endpoint: Endpoint,
}

impl Net {
    /// Listens, as the device whose key the seed makes.
    ///
    /// # Errors
    /// [`NetError::Bind`], [`NetError::Relay`].
    pub async fn bind(config: &NetConfig, key_seed: &[u8; 32]) -> Result<Self, NetError> {
        // The stream window stays as it is: at 3 MB and more, iroh 1.4 fails with too many gaps.
        let streams = u32::try_from(ANSWERS_MAX).unwrap_or(u32::MAX) + 1;
        let transport = QuicTransportConfig::builder()
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .build();
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(key_seed))
            .alpns(vec![ALPN.to_vec()])
            .relay_mode(relay_mode(&config.relays)?)
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport);
        if !config.bind.is_empty() {
            builder = builder.clear_ip_transports();
            for address in &config.bind {
                builder =
                    builder.bind_addr(*address).map_err(|e| NetError::Bind(format!("{e:#}")))?;
            }
        }
        let endpoint = builder.bind().await.map_err(|e| NetError::Bind(format!("{e:#}")))?;
        if config.lan_discovery
            && let Err(error) = discover(&endpoint)
        {
            tracing::warn!("devices on the local network are not looked for: {error}");
        }
        Ok(Self { endpoint })
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        DeviceId(*self.endpoint.id().as_bytes())
    }

    /// Where this device can be reached, as far as it knows now.
    pub fn addresses(&self) -> Addresses {
        let addr = self.endpoint.addr();
        Addresses {
            sockets: addr.ip_addrs().take(ADDRESSES_MAX).copied().collect(),
            relays: addr.relay_urls().take(ADDRESSES_MAX).map(ToString::to_string).collect(),
        }
    }

    /// Connects. Gives up by itself, after some ten seconds.
    ///
    /// # Errors
    /// [`NetError::NoDevice`], [`NetError::Connect`]; an address that makes no sense is passed
    /// over.
    pub async fn dial(&self, peer: &DeviceId, addresses: &Addresses) -> Result<Link, NetError> {
        let id = EndpointId::from_bytes(&peer.0).map_err(|_| NetError::NoDevice)?;
        let mut addr = EndpointAddr::new(id);
        for socket in &addresses.sockets {
            addr = addr.with_ip_addr(*socket);
        }
        for relay in addresses.relays.iter().filter_map(|url| url.parse::<RelayUrl>().ok()) {
            addr = addr.with_relay_url(relay);
        }
        let connected = self.endpoint.connect(addr, ALPN).await;
        connected.map(Link::new).map_err(|e| NetError::Connect(format!("{e:#}")))
    }

    /// The next connection that comes in; none once the endpoint is closed.
    pub async fn accept(&self) -> Option<Arriving> {
        self.endpoint.accept().await.map(Arriving)
    }

    /// Closes all connections, and waits until the peers can have heard of it.
    pub async fn close(&self) {
        self.endpoint.close().await;
    }
}

/// A connection whose other side is not known yet.
#[derive(Debug)]
pub struct Arriving(Incoming);

impl Arriving {
    /// Turns it away: too many come at once.
    pub fn refuse(self) {
        self.0.refuse();
    }

    /// Finishes the handshake, after which the other side's key is proven.
    ///
    /// # Errors
    /// [`NetError::Connect`].
    pub async fn finish(self) -> Result<Link, NetError> {
        let connected = self.0.await;
        connected.map(Link::new).map_err(|e| NetError::Connect(format!("{e:#}")))
    }
}

/// Looks for devices on the local network, and lets them find this one.
fn discover(endpoint: &Endpoint) -> Result<(), String> {
    let discovery = MdnsAddressLookup::builder().service_name(LAN_SERVICE).build(endpoint.id());
    let discovery = discovery.map_err(|e| format!("{e:#}"))?;
    endpoint.address_lookup().map_err(|e| format!("{e:#}"))?.add(discovery);
    Ok(())
}

fn relay_mode(relays: &[String]) -> Result<RelayMode, NetError> {
    if relays.is_empty() {
        return Ok(RelayMode::Disabled);
    }
    let parse = |url: &String| {
        url.parse::<RelayUrl>()
            .map_err(|error| NetError::Relay { url: url.clone(), why: error.to_string() })
    };
    let urls: Vec<RelayUrl> = relays.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(RelayMode::custom(urls))
}
