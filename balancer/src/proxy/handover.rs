//! The listener passes to the next process, so that a restart loses no connection that waits in its queue.
//!
//! Two sockets on one port (SO_REUSEPORT) are not enough: what waits in the queue of the one that closes is reset. Here
//! the old process gives the very socket away, over a Unix socket, and both accept from one queue until the old one
//! stops.
//!
//! The old process offers (`Offer::bind`), serves, and drains when [`Offer::taken`] ends. The new one asks with
//! [`take`], is told there is none when it is the first, and says [`Taken::ready`] once it serves.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::timeout;

/// An offer of listeners to the next process; the path is free again when it is dropped.
#[derive(Debug)]
pub struct Offer {
    socket: UnixListener,
    path: PathBuf,
    /// Which file it is: the successor puts its own in the same place.
    file: u64,
}

/// Listeners that were taken over; drop it without [`ready`](Taken::ready), and the old process goes on alone.
#[derive(Debug)]
pub struct Taken {
    stream: UnixStream,
    listeners: Vec<TcpListener>,
}

impl Offer {
    /// Offers at `path`, readable by this user only; what is left there of a process that is gone is replaced.
    ///
    /// # Errors
    /// When the path can't be bound.
    pub fn bind(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        // The name appears only when it is complete and closed to others.
        let early = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&early);
        let socket = UnixListener::bind(&early)?;
        std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&early, &path)?;
        let file = std::fs::metadata(&path)?.ino();
        Ok(Self { socket, path, file })
    }

    /// Gives `listeners` to whoever asks; ends when a successor has them and says that it serves. Use it as the
    /// `shutdown` of [`serve`](super::Gateway::serve), on duplicates of what is served.
    ///
    /// # Errors
    /// When the offer itself can't go on. A successor that fails is no such error: the next one may ask.
    pub async fn taken(&self, listeners: &[OwnedFd]) -> io::Result<()> {
        loop {
            let (stream, _) = self.socket.accept().await?;
            match give(stream, listeners).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(target: "balancer", %error, "a handover came to nothing"),
            }
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // The successor's offer may be there already: it is not ours to take away.
        if std::fs::metadata(&self.path).is_ok_and(|data| data.ino() == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A duplicate of a listener, to offer it.
///
/// # Errors
/// When there is no descriptor left.
pub fn duplicate(listener: &TcpListener) -> io::Result<OwnedFd> {
    listener.as_fd().try_clone_to_owned()
}

/// Asks for the listeners of the process that offers them at `path`; `None` when there is none.
///
/// # Errors
/// When a process is there and the handover fails.
pub async fn take(path: impl AsRef<Path>) -> io::Result<Option<Taken>> {
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the other process does not give its listeners");
    let fds = timeout(PATIENCE, stream.async_io(Interest::READABLE, || receive(stream.as_fd())))
        .await
        .map_err(late)??;
    let mut listeners = Vec::new();
    for fd in fds {
        let listener = std::net::TcpListener::from(fd);
        listener.set_nonblocking(true)?;
        listeners.push(TcpListener::from_std(listener)?);
    }
    if listeners.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the other process gave no listener"));
    }
    Ok(Some(Taken { stream, listeners }))
}

impl Taken {
    /// The listeners, in the order in which they were offered; once.
    pub fn listeners(&mut self) -> Vec<TcpListener> {
        std::mem::take(&mut self.listeners)
    }

    /// Tells the old process that this one serves: it drains.
    ///
    /// # Errors
    /// When the old process is gone; then nothing is lost either.
    pub async fn ready(mut self) -> io::Result<()> {
        self.stream.write_all(&[READY]).await
    }
}

async fn give(mut stream: UnixStream, listeners: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).take(MOST).collect();
    stream.async_io(Interest::WRITABLE, || send(stream.as_fd(), &fds)).await?;
    // It may take as long as a start takes; should it die, the stream ends.
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    if answer == [READY] { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "an odd answer")) }
}

fn send(stream: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    sendmsg(stream, &[IoSlice::new(&[OFFERED])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let messages = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(messages.flatten().collect())
}

/// Listeners that go at a time.
const MOST: usize = 16;
const OFFERED: u8 = b'L';
const READY: u8 = b'R';
const PATIENCE: Duration = Duration::from_secs(10);
