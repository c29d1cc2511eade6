//! The project's own commands: `cargo xtask demo`, `cargo xtask test`.

mod demo;
mod node;
mod python;
mod run;
mod test;

use std::process::ExitCode;

use run::Run;

/// A command: its name, what it does, and the doing.
type Command = (&'static str, &'static str, fn(&mut Run) -> Result<(), String>);

const COMMANDS: [Command; 2] = [
    (
        "demo",
        "pins and unpins the platform page's example group from Rust, Python and Node",
        demo::demo,
    ),
    (
        "test",
        "formats, lints, builds and tests everything, in all three languages",
        test::test,
    ),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, rest) = (arguments.next(), arguments.next());
    let known = COMMANDS
        .iter()
        .find(|(known, ..)| rest.is_none() && name.as_deref() == Some(known));
    let Some((_, _, command)) = known else {
        eprintln!("usage: cargo xtask COMMAND\n");
        for (name, what, _) in COMMANDS {
            eprintln!("  {name:<6} {what}");
        }
        return ExitCode::from(2);
    };
    let mut run = Run::new();
    match command(&mut run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask {}: {error}", name.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
