//! The program `tidefs`.

mod cli;
mod heap;

use std::process::ExitCode;

fn main() -> ExitCode {
    heap::give_back();
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidefs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
