//! The `ringroad` command.

mod doctor;
mod echo;
mod http;
mod load;
mod names;
mod report;
mod stack;
mod sys;

use std::process::ExitCode;

use clap::Parser;

/// TCP, UDP and IP in user space over AF_XDP.
#[derive(Parser, Debug)]
#[command(name = "ringroad", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Doctor(doctor::Args),
    Echo(echo::Args),
    Http(http::Args),
    Load(load::Args),
    Report(report::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Echo(args) => echo::run(&args),
        Command::Http(args) => http::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Report(args) => report::run(&args),
    };
    result.unwrap_or_else(|message| {
        eprintln!("ringroad: {message}");
        ExitCode::FAILURE
    })
}
