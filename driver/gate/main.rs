//! `weir-gate COOKIE CLAIM`: a `createRuntime` hook that refuses containers outside the network
//! namespace that has this cookie. The driver brings it along and puts it on the host.

#[path = "../src/sys/cookie.rs"]
mod cookie;
#[path = "../src/sys/gate.rs"]
mod gate;

use std::process::ExitCode;
use std::{env, io};

fn main() -> ExitCode {
    let arguments = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let ticket = gate::Ticket::read(arguments);
    match gate::admit(ticket.as_ref(), io::stdin().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            let claim = ticket.map(|ticket| ticket.claim).unwrap_or_default();
            eprintln!("weir: the container may not have the device of claim {claim}: {refusal}");
            ExitCode::FAILURE
        }
    }
}
