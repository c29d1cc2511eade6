//! The everyday commands: `cargo xtask help` lists them.

mod citations;
mod demo;
mod dependencies;
mod docs;
mod release;
mod test;

use std::process::ExitCode;

use tools::emulated::run_packages;
use tools::package::{assemble, package};
use tools::platforms::platforms;
use tools::run::Run;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  demo      pin and unpin on the sandbox, from Rust, Python and Node.js
  test      check the format, lint, build and test, in all three languages
  docs      build the site, check its links; --recipes: run the guide's programs
  package   build the wheels, npm packages and crates, check them, make calls
  platforms type-check for the platforms that this machine is not; 8 minutes
  platforms --run     make calls with the built packages for musl and arm64
  help      print this

For the workflows (docs/RELEASING.md):

  dependencies          check licences, advisories, duplicates; compile with the
                        oldest Rust and the smallest versions of dependencies
  version TAG           check that the manifests and the changelog have its version
  package --assemble    as package, of what all platforms have built
  publish crates|npm [--dry-run]

The laboratory, in crates of its own:

  cargo benchmark   compare the speed with other clients; 15 minutes
  cargo torture     call from all languages while everything fails; 10 minutes
  cargo matrix      test on every Python, Node.js, Bun and Deno available
";

/// All steps name the same packages, so that cargo resolves one set of features for their dependencies and builds
/// each once. The bindings' crates are built and tested through their packages.
const WITHOUT_BINDINGS: [&str; 4] = [
    "--workspace",
    "--exclude=feishu-feed-card-python",
    "--exclude=feishu-feed-card-node",
    "--locked",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = &mut Run::new();
    let result = match arguments[..] {
        ["demo"] => demo::demo(run),
        ["docs", ref arguments @ ..] => docs::docs(run, arguments),
        ["package"] => package(run),
        ["package", "--assemble"] => assemble(run),
        ["platforms"] => platforms(run),
        ["platforms", "--run"] => run_packages(run),
        ["dependencies"] => dependencies::dependencies(run),
        ["version", tag] => release::version(run, tag),
        ["publish", "crates"] => release::publish_crates(run, false),
        ["publish", "crates", "--dry-run"] => release::publish_crates(run, true),
        ["publish", "npm"] => release::publish_npm(run, false),
        ["publish", "npm", "--dry-run"] => release::publish_npm(run, true),
        ["test"] => test::test(run),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        [] => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
        _ => {
            eprintln!("cargo xtask {}: unknown\n\n{HELP}", arguments.join(" "));
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}
