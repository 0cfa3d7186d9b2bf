//! The `minion` program.

fn main() -> anyhow::Result<()> {
    minion::run(std::env::args_os())
}
