//! The `reprovisiond` binary: parses the command line and returns an exit code.

fn main() -> std::process::ExitCode {
    reprovisiond::cli::main()
}
