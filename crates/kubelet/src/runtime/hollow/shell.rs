//! What commands do in a machine without programs: a handful of words, the same each time.
//!
//! `echo`, `true`, `false`, `exit N`, `sleep N` and `cat` do what they do elsewhere; `stty size` prints the size of the
//! terminal; `touch F`, `rm F` and `cat F` know of files that are there or not, and empty; `sh` reads such commands from
//! its input, line by line; `sh -c '…'` runs one. Anything else prints its own name on standard error and ends with 127,
//! as a shell does with what it does not find.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::StreamExt;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::super::{Output, Process, Result, Session, TerminalSize, Wanted};

/// Bytes of input, and pieces of output, that wait for their reader.
const INPUT_BYTES: usize = 64 << 10;
const OUTPUT_PIECES: usize = 8;
const NOT_FOUND: i64 = 127;

/// The names of a container's files.
pub(super) type Files = Arc<Mutex<BTreeSet<String>>>;

/// Counts what runs here while it does.
pub(super) struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    pub(super) fn new(count: &Arc<watch::Sender<usize>>) -> Counted {
        count.send_modify(|count| *count += 1);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Runs `command` until it ends or its session is dropped.
pub(super) fn start(command: &[String], wanted: Wanted, files: Files, counted: Counted) -> Session {
    let command = command.to_vec();
    connect(wanted, files, counted, |mut shell| async move { shell.run(&command).await })
}

/// A process that echoes what it is told, until `ended`.
pub(super) fn echo(wanted: Wanted, counted: Counted, ended: impl Future<Output = ()> + Send + 'static) -> Session {
    connect(wanted, Files::default(), counted, |mut shell| async move {
        tokio::select! {
            code = shell.cat() => if wanted.stdin { code } else { std::future::pending().await },
            () = ended => 0,
        }
    })
}

fn connect<F>(wanted: Wanted, files: Files, counted: Counted, main: impl FnOnce(Shell) -> F) -> Session
where
    F: Future<Output = i64> + Send + 'static,
{
    let (stdin, input) = tokio::io::duplex(INPUT_BYTES);
    let (output, pieces) = mpsc::channel(OUTPUT_PIECES);
    let size = watch::Sender::new(TerminalSize::default());
    let code = Arc::new(watch::Sender::new(None));
    let gone = output.clone();
    let main = main(Shell { input: BufReader::new(input), output, size: size.subscribe(), wanted, files });
    let ended = code.clone();
    tokio::spawn(async move {
        tokio::select! {
            code = main => { ended.send_replace(Some(code)); }
            () = gone.closed() => {}
        }
        drop(counted);
    });
    Session {
        stdin: wanted.stdin.then(|| Box::new(stdin) as Box<_>),
        output: ReceiverStream::new(pieces).map(Ok).boxed(),
        process: Box::new(Handle { size, code }),
    }
}

struct Handle {
    size: watch::Sender<TerminalSize>,
    code: Arc<watch::Sender<Option<i64>>>,
}

#[async_trait::async_trait]
impl Process for Handle {
    async fn resize(&self, size: TerminalSize) -> Result<()> {
        self.size.send_replace(size);
        Ok(())
    }

    async fn wait(&self) -> Result<i64> {
        let mut code = self.code.subscribe();
        let ended = code.wait_for(Option::is_some).await;
        Ok(ended.ok().and_then(|code| *code).unwrap_or_default())
    }
}

struct Shell {
    input: BufReader<DuplexStream>,
    output: mpsc::Sender<Output>,
    size: watch::Receiver<TerminalSize>,
    wanted: Wanted,
    files: Files,
}

impl Shell {
    async fn run(&mut self, command: &[String]) -> i64 {
        let words: Vec<&str> = match command {
            [shell] if shell.ends_with("sh") => return self.interactive().await,
            [shell, flag, script] if shell.ends_with("sh") && flag == "-c" => script.split_whitespace().collect(),
            _ => command.iter().map(String::as_str).collect(),
        };
        self.one(&words).await
    }

    /// Commands from the input, one a line, to its end or `exit`.
    async fn interactive(&mut self) -> i64 {
        let mut code = 0;
        loop {
            let mut line = String::new();
            if !matches!(self.input.read_line(&mut line).await, Ok(1..)) {
                return code;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            code = if words.is_empty() { code } else { self.one(&words).await };
            if words.first() == Some(&"exit") {
                return code;
            }
        }
    }

    async fn one(&mut self, words: &[&str]) -> i64 {
        match words {
            ["true", ..] => 0,
            ["false", ..] => 1,
            ["exit"] => 0,
            ["exit", code] => code.parse().unwrap_or(2),
            ["echo", rest @ ..] => self.print(format!("{}\n", rest.join(" "))).await,
            ["cat"] => self.cat().await,
            ["touch", file] => {
                self.files.lock().insert((*file).to_owned());
                0
            }
            ["rm" | "cat", file] if !self.files.lock().contains(*file) => {
                let what = if words[0] == "cat" { "open" } else { "remove" };
                let error = format!("{}: can't {what} '{file}': No such file or directory\n", words[0]);
                self.print(error).await;
                1
            }
            ["rm", file] => {
                self.files.lock().remove(*file);
                0
            }
            ["cat", _] => 0,
            ["sleep", seconds] if seconds.parse::<u32>().is_ok() => {
                tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap_or_default())).await;
                0
            }
            ["stty", "size"] => {
                // Whoever asks for the size wants to see one; it comes right after the start.
                let size = self.size.wait_for(|size| *size != TerminalSize::default()).await.map(|size| *size);
                let size = size.unwrap_or_default();
                self.print(format!("{} {}\n", size.height, size.width)).await
            }
            other => {
                let message = format!("sh: {}: not found\n", other.first().unwrap_or(&""));
                if self.wanted.tty || !self.wanted.stderr {
                    self.print(message).await;
                } else {
                    let _ = self.output.send(Output::Stderr(message.into())).await;
                }
                NOT_FOUND
            }
        }
    }

    async fn cat(&mut self) -> i64 {
        if !self.wanted.stdin {
            return 0;
        }
        loop {
            let mut piece = vec![0; 32 << 10];
            match self.input.read(&mut piece).await {
                Ok(read @ 1..) => {
                    piece.truncate(read);
                    if self.output.send(Output::Stdout(piece.into())).await.is_err() {
                        return 1;
                    }
                }
                _ => return 0,
            }
        }
    }

    async fn print(&mut self, text: String) -> i64 {
        let sent = self.output.send(Output::Stdout(Bytes::from(text))).await;
        i64::from(sent.is_err())
    }
}

/// A server on every port that sends back what it is sent.
pub(super) fn echo_connection(counted: Counted) -> DuplexStream {
    let (near, far) = tokio::io::duplex(INPUT_BYTES);
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(far);
        // It ends with the client, which is no news.
        let _ = tokio::io::copy(&mut reader as &mut (dyn AsyncRead + Send + Unpin), &mut writer).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
        drop(counted);
    });
    near
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::runtime::session::collect;

    fn counted() -> Counted {
        Counted::new(&Arc::default())
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn commands_print_and_end_as_their_words_say() {
        let wanted = Wanted { stdout: true, stderr: true, ..Wanted::default() };
        for (command, code, output) in [
            (words("echo hello you"), 0, "hello you\n"),
            (words("false"), 1, ""),
            (vec!["sh".into(), "-c".into(), "exit 3".into()], 3, ""),
            (words("httpd"), 127, "sh: httpd: not found\n"),
            (words("cat"), 0, ""),
        ] {
            let result = collect(start(&command, wanted, Files::default(), counted())).await.unwrap();
            assert_eq!((result.code, result.output.as_str()), (code, output), "{command:?}");
        }
    }

    #[tokio::test]
    async fn a_shell_reads_its_input_to_the_end() {
        let wanted = Wanted { stdin: true, stdout: true, ..Wanted::default() };
        let mut session = start(&words("sh"), wanted, Files::default(), counted());
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"echo a\n\ntrue\nnonsense\n").await.unwrap();
        stdin.shutdown().await.unwrap();
        let result = collect(session).await.unwrap();
        assert_eq!((result.code, result.output.as_str()), (127, "a\nsh: nonsense: not found\n"));
    }
}
