//! The program `roost`. It only hands over to the commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    roost::cli::main()
}
