//! A conversation with a command in a container: its output to ours, our input to its, and the
//! terminal, if there is one, in its hands.

use std::io::{Read, Write};

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::control::{Control, Output, Session};
use crate::detach::DetachKeys;
use crate::failure::Failure;
use crate::signals::Interrupts;
use crate::terminal::{self, RawMode, Resizes};

/// How a conversation is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner<'a> {
    /// The command has a terminal.
    pub(crate) tty: bool,
    /// It reads our input.
    pub(crate) input: bool,
    /// Signals that we get go to this container; without one they end the conversation.
    pub(crate) signals_to: Option<&'a str>,
}

/// Whether both our input and our output are a terminal.
pub(crate) fn on_terminal() -> bool {
    terminal::is_terminal(rustix::stdio::stdin()) && terminal::is_terminal(rustix::stdio::stdout())
}

/// How a conversation may end before the command's output does.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// With these keys.
    pub(crate) keys: Option<DetachKeys>,
    /// The end of our input is the end of its. Else it goes on: others may talk to it later, and
    /// the Engine would take an end of input for the wish to hear no more.
    pub(crate) with_input: bool,
}

/// How a conversation ended.
pub(crate) enum End {
    /// The output is over.
    Over(Box<Session>),
    /// The user left, and the command goes on.
    Detached,
}

/// Holds a conversation until the command's output ends; its exit code.
pub(crate) async fn converse(
    control: &Control,
    session: Session,
    manner: Manner<'_>,
) -> Result<i64, Failure> {
    let leaving = Leaving {
        keys: None,
        with_input: true,
    };
    match talk(control, session, manner, leaving).await? {
        End::Over(session) => Ok(session.exit_code().await?),
        End::Detached => Ok(0),
    }
}

/// Holds a conversation until the command's output ends or the user leaves.
pub(crate) async fn talk(
    control: &Control,
    mut session: Session,
    manner: Manner<'_>,
    mut leaving: Leaving,
) -> Result<End, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let mut resizes = Resizes::listen()?;
    let resizer = session.resizer();
    let raw = if manner.tty && manner.input && terminal::is_terminal(rustix::stdio::stdin()) {
        Some(RawMode::enter()?)
    } else {
        None
    };
    let mut keys = manner.input.then(read_input);
    let (output, input) = (&mut session.output, &mut session.input);
    let write = async {
        if let Some(keys) = &mut keys {
            while let Some(bytes) = keys.recv().await {
                let (bytes, left) = match &mut leaving.keys {
                    Some(keys) => keys.pass(&bytes),
                    None => (bytes, false),
                };
                input.write_all(&bytes).await?;
                input.flush().await?;
                if left {
                    return Ok(());
                }
            }
            if leaving.with_input {
                input.shutdown().await?;
            }
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let resize = async {
        // The command's terminal may not be there yet: a size is a favour, not a need.
        if manner.tty {
            if let Some((width, height)) = terminal::size(rustix::stdio::stdout()) {
                let _ = resizer.resize(width, height).await;
            }
            loop {
                let (width, height) = resizes.next().await;
                let _ = resizer.resize(width, height).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        while let Some(piece) = output.next().await {
            let piece = piece?;
            show(&piece)?;
        }
        Ok::<(), Failure>(())
    };
    let outcome = {
        let (mut write, mut resize, mut read) = (
            std::pin::pin!(write),
            std::pin::pin!(resize),
            std::pin::pin!(read),
        );
        let mut writable = true;
        loop {
            tokio::select! {
                done = &mut read => break done.map(|()| false),
                left = &mut write, if writable => match left {
                    Ok(()) => break Ok(true),
                    // It reads no more; what it says is still of interest.
                    Err(_) => writable = false,
                },
                () = &mut resize => {}
                signal = interrupts.which() => match manner.signals_to {
                    // If it has ended just now, so has its output.
                    Some(id) => { let _ = control.kill(id, signal).await; }
                    None => break Err(Failure::Exit(130)),
                },
            }
        }
    };
    drop(raw);
    Ok(if outcome? {
        End::Detached
    } else {
        End::Over(Box::new(session))
    })
}

fn show(piece: &Output) -> std::io::Result<()> {
    if piece.stderr {
        let mut err = std::io::stderr().lock();
        return err.write_all(&piece.bytes);
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&piece.bytes)?;
    out.flush()
}

/// Our input, read by a thread that ends with the process: nothing else can break off a read
/// from a terminal.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            if sender.blocking_send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}
