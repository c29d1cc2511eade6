//! The project's own commands: `cargo xtask` lists them.

mod bench;
mod debian;
mod demo;
mod free_threaded;
mod matrix;
mod musl;
mod node;
mod options;
mod package;
mod python;
mod run;
mod test;
mod torture;

use std::process::ExitCode;

use options::{Opt, Options};
use run::Run;

/// A command: its name, what it does, its options, and the doing.
struct Command {
    name: &'static str,
    what: &'static str,
    options: &'static [Opt],
    run: fn(&mut Run, &Options) -> Result<(), String>,
}

const COMMANDS: [Command; 6] = [
    Command {
        name: "bench",
        what: "measures ours beside everyone else, and writes docs/benchmarks",
        options: bench::OPTIONS,
        run: bench::bench,
    },
    Command {
        name: "demo",
        what: "pins and unpins the platform page's example group from Rust, Python and Node",
        options: &[],
        run: |run, _| demo::demo(run),
    },
    Command {
        name: "matrix",
        what: "tests what is published on every Python, Node, Bun and Deno there is",
        options: &[],
        run: |run, _| matrix::matrix(run),
    },
    Command {
        name: "package",
        what: "builds what is published, for glibc and musl, and looks at it",
        options: &[],
        run: |run, _| package::package(run),
    },
    Command {
        name: "test",
        what: "formats, lints, builds and tests everything, in all three languages",
        options: &[],
        run: |run, _| test::test(run),
    },
    Command {
        name: "torture",
        what: "calls from all languages at once against a sandbox that does what networks do",
        options: torture::OPTIONS,
        run: torture::torture,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next();
    let Some(command) = COMMANDS
        .iter()
        .find(|command| name.as_deref() == Some(command.name))
    else {
        eprintln!("{}", usage());
        return ExitCode::from(2);
    };
    let options = match Options::read(command.options, arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("cargo xtask {}: {error}\n\n{}", command.name, usage());
            return ExitCode::from(2);
        }
    };
    match (command.run)(&mut Run::new(), &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask {}: {error}", command.name);
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let mut lines = vec!["usage: cargo xtask COMMAND [OPTIONS]\n".to_owned()];
    for command in &COMMANDS {
        lines.push(format!("  {:<8} {}", command.name, command.what));
        let options = command.options.iter();
        lines.extend(options.map(|option| format!("             {:<12} {}", option.shown(), option.what)));
    }
    lines.join("\n")
}
