//! What is said over a connection: lines, files, ends of every kind. Both sides of it.
//!
//! A server answers a line with its name and the line. A line that begins with a slash, or as HTTP does, asks for more.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};
use socket2::{SockRef, Type};

use super::{
    protocol::{Answer, Conversation},
    socket::{DEADLINE, errno, error_name, open},
};

/// Bytes that are written or read at once.
const BLOCK: usize = 64 * 1024;

const UPLOAD: &str = "/upload";
const DOWNLOAD: &str = "/download";
const CLOSE: &str = "/close";
const RESET: &str = "/reset";
const END: &str = "/end";
const ENDED: &str = "/ended";
const URGENT: &str = "/urgent";
/// What a server says when it has understood and waits.
const READY: &str = "ready";

/// How connections of this server ended on which it was asked to watch for that, in their order.
#[derive(Clone, Default)]
pub(super) struct Ends(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Ends {
    fn add(&self, end: &str) {
        let (ends, changed) = &*self.0;
        ends.lock().unwrap_or_else(PoisonError::into_inner).push(end.to_owned());
        changed.notify_all();
    }

    /// Waits for an end that nobody was told of yet.
    fn take(&self) -> String {
        let (ends, changed) = &*self.0;
        let ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut ends, _) = changed
            .wait_timeout_while(ends, DEADLINE, |ends| ends.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if ends.is_empty() { "no end".to_owned() } else { ends.remove(0) }
    }
}

/// The server's side, until the client or a request ends it.
pub(super) fn answer(name: &str, stream: &TcpStream, ends: &Ends) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let count = || argument.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        match verb {
            UPLOAD => {
                let sum = checksum(&mut reader, count()?)?;
                writeln!(writer, "{name} {sum}")?;
            }
            DOWNLOAD => send_bytes(&mut writer, count()?)?,
            CLOSE => return Ok(()),
            // Dropping the socket sends a reset from now on.
            RESET => return SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            END => {
                writeln!(writer, "{READY}")?;
                let end = end_of(&mut reader);
                ends.add(&end);
                return writeln!(writer, "{name} {end}");
            }
            ENDED => writeln!(writer, "{name} {}", ends.take())?,
            URGENT => {
                writeln!(writer, "{READY}")?;
                let seen = urgent_end(stream)?;
                return writeln!(writer, "{name} {seen}");
            }
            "GET" => return http(name, &mut reader, &mut writer),
            _ => writeln!(writer, "{name} {line}")?,
        }
    }
}

/// The client's side, with which the connection ends. `to` is where it was made to, for who needs another one.
pub(super) fn converse(connection: TcpStream, to: SocketAddr, how: Conversation) -> io::Result<Answer> {
    let mut stream = &connection;
    match how {
        Conversation::Upload(bytes) => {
            writeln!(stream, "{UPLOAD} {bytes}")?;
            send_bytes(&mut stream, bytes)?;
            read_answer(stream)
        }
        Conversation::Download(bytes) => {
            writeln!(stream, "{DOWNLOAD} {bytes}")?;
            Ok(Answer::Line(checksum(&mut stream, bytes)?))
        }
        Conversation::HalfClose => {
            begin(stream, END)?;
            stream.write_all(b"abc")?;
            stream.shutdown(Shutdown::Write)?;
            whole_answer(stream)
        }
        Conversation::Reset => {
            begin(stream, END)?;
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
            drop(connection);
            let socket = open(to, Type::STREAM)?;
            socket.connect(&to.into())?;
            ask(&TcpStream::from(socket), ENDED)
        }
        Conversation::ServerCloses => ask(stream, CLOSE),
        Conversation::ServerResets => ask(stream, RESET),
        Conversation::Urgent => {
            begin(stream, URGENT)?;
            stream.write_all(b"ab")?;
            send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB)?;
            stream.write_all(b"cd")?;
            stream.shutdown(Shutdown::Write)?;
            whole_answer(stream)
        }
    }
}

/// Sends a line and waits for the answer.
pub(super) fn ask(mut stream: &TcpStream, text: &str) -> io::Result<Answer> {
    stream.write_all(format!("{text}\n").as_bytes())?;
    read_answer(stream)
}

fn read_answer(stream: &TcpStream) -> io::Result<Answer> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.strip_suffix('\n').map_or(Answer::Closed, |line| Answer::Line(line.to_owned())))
}

/// An answer after which the server closes.
fn whole_answer(mut stream: &TcpStream) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(Answer::Line(text.trim_end().to_owned()))
}

/// Asks for something for which the server must be ready first.
fn begin(stream: &TcpStream, verb: &str) -> io::Result<()> {
    match ask(stream, verb)? {
        Answer::Line(line) if line == READY => Ok(()),
        Answer::Line(_) => Err(io::ErrorKind::InvalidData.into()),
        Answer::Closed => Err(io::Error::from_raw_os_error(libc::ECONNABORTED)),
    }
}

/// How many bytes came, and how the connection ended.
fn end_of(reader: &mut impl Read) -> String {
    let mut got = Vec::new();
    let end = reader.read_to_end(&mut got);
    format!(
        "{} bytes, then {}",
        got.len(),
        end.map_or_else(|error| error_name(errno(&error)), |_| "the end".to_owned())
    )
}

/// What came in all, and apart from that, urgently. The byte must be fetched before what follows it is read.
fn urgent_end(mut stream: &TcpStream) -> io::Result<String> {
    let wait = PollFd::new(stream.as_fd(), PollFlags::POLLPRI | PollFlags::from_bits_retain(libc::POLLRDHUP));
    poll(&mut [wait], PollTimeout::try_from(DEADLINE).unwrap_or(PollTimeout::MAX))?;
    let mut byte = [0];
    let urgent = match recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_OOB) {
        Ok(_) => char::from(byte[0]).to_string(),
        Err(error) => format!("{error:?}"),
    };
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(format!("{text}, urgently {urgent}"))
}

/// As much of HTTP as a client needs that fetches one page.
fn http(name: &str, reader: &mut impl io::BufRead, writer: &mut impl Write) -> io::Result<()> {
    let mut header = String::new();
    while reader.read_line(&mut header)? > 0 && !header.trim_end().is_empty() {
        header.clear();
    }
    let body = format!("{name} hello");
    write!(writer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The same bytes in every run, and none of its blocks like another.
fn send_bytes(writer: &mut impl Write, bytes: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut state = 0x2545_f491_u32;
    for byte in &mut block {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state.to_be_bytes()[0];
    }
    let (mut left, mut number) = (bytes, 0_u64);
    while left > 0 {
        block[..8].copy_from_slice(&number.to_be_bytes());
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        writer.write_all(&block[..length])?;
        left -= length as u64;
        number += 1;
    }
    Ok(())
}

/// Reads that many bytes and tells their checksum; fewer, if the connection ends before.
fn checksum(reader: &mut impl Read, bytes: u64) -> io::Result<String> {
    let mut sum = Sum { crc: crc32fast::Hasher::new(), count: 0 };
    io::copy(&mut reader.take(bytes), &mut sum)?;
    Ok(format!("{} bytes of checksum {:08x}", sum.count, sum.crc.finalize()))
}

struct Sum {
    crc: crc32fast::Hasher,
    count: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.crc.update(bytes);
        self.count += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
