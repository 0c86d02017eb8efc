//! The `pitfs` command.

fn main() -> std::process::ExitCode {
    pitfs::cli::main()
}
