//! The operator. See `broadcast-operator --help`.

fn main() -> std::process::ExitCode {
    broadcast_operator::cli::main()
}
