//! The files that TLS is set up with.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::contents;
use super::explain::pem_words;
use crate::host::file;
use crate::host::os_error::system_error;

/// Files in PEM form by which both sides are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Root certificates that are trusted.
    pub roots: Vec<PathBuf>,
    /// Mozilla's roots, which are built in, are trusted besides those in files. Without files they are in any
    /// case.
    pub builtin_roots: bool,
    /// The certificate that is shown to servers which ask for one, and the file of its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// They are read again, while the program serves: files alone, and of all of them together so many octets.
    pub again: Option<usize>,
}

impl Files {
    /// The files, each once for each thing that it holds, behind its flag.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let roots = self.roots.iter().map(|file| (CA_FILE, file));
        let client = self.client.iter();
        let client =
            client.flat_map(|(certificate, key)| [(CLIENT_CERT, certificate), (CLIENT_KEY, key)]);
        roots.chain(client).map(|(flag, file)| (flag, file.as_path()))
    }

    /// How many octets all of them may have, together, when they are read again: those that they have now, or a few
    /// certificates.
    pub fn octets_again_max(&self) -> usize {
        let octets = |file: &Path| fs::metadata(file).map_or(0, |it| it.len() as usize);
        self.paths().map(octets).sum::<usize>().max(OCTETS_AGAIN)
    }

    /// What may be read of them.
    pub(super) fn reading(&self) -> Reading {
        self.again.map_or(Reading::First(PIPE_TIME_MAX), Reading::Again)
    }

    /// The files, each once for each thing that it holds.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.given().map(|(_, file)| file)
    }
}

/// What may be read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// Files of any number, and pipes, each to its end within this time.
    First(Duration),
    /// Files alone, of so many octets together.
    Again(usize),
}

/// One line about the file of a flag.
pub(super) fn named(flag: &str, file: &Path, problem: &str) -> String {
    format!("{flag} {}: {problem}", file.display())
}

/// The certificates in the file of a flag, one or more. The error is as that of [`read`].
pub(super) fn certificates(
    flag: &str,
    file: &Path,
    reading: &mut Reading,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let octets = read(flag, file, reading)?;
    let named = |problem: &str| named(flag, file, problem);
    let certificates = CertificateDer::pem_slice_iter(&octets)
        .enumerate()
        .map(|(index, certificate)| {
            certificate.map_err(|error| {
                named(&format!("certificate {} is damaged: {}", index + 1, pem_words(&error)))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    // The reader passes over certificates of OpenSSL with a purpose, and over those that do not begin a
    // line.
    let begun = certificates_begun(&octets);
    let passed_over = begun.saturating_sub(certificates.len());
    if passed_over > 0 {
        return Err(named(&format!(
            "{passed_over} of {begun} certificates cannot be read; each is expected between lines \
             of its own, \"-----BEGIN CERTIFICATE-----\" and \"-----END CERTIFICATE-----\"; openssl x509 \
             -in FILE writes one so"
        )));
    }
    if certificates.is_empty() {
        return Err(named(&contents::unexpected(&octets, flag, file)));
    }
    Ok(certificates)
}

/// How many certificates a file has, whether they can be read or not, under any of the names that OpenSSL
/// has for them: "CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE".
fn certificates_begun(octets: &[u8]) -> usize {
    let text = String::from_utf8_lossy(octets);
    contents::labels(&text).filter(|label| label.trim_end().ends_with("CERTIFICATE")).count()
}

/// What is in the file of a flag, or comes out of a pipe. The error is one line that names both and says what is
/// wrong and what to do.
pub(super) fn read(flag: &str, file: &Path, reading: &mut Reading) -> Result<Vec<u8>, String> {
    let octets = try_read(file, *reading).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::IsADirectory => {
                "; one file was expected: `cat` puts several into one, and Docker makes a directory where \
                 the file to be mounted is not there"
                    .into()
            }
            io::ErrorKind::PermissionDenied => file::NOT_PERMITTED.into(),
            io::ErrorKind::NotFound => other_name(flag, &file.to_string_lossy()),
            _ => String::new(),
        };
        named(flag, file, &format!("cannot be read: {}{remedy}", system_error(&error)))
    })?;
    if octets.is_empty() {
        return Err(named(flag, file, "is empty; something in PEM form was expected"));
    }
    if let Reading::Again(left) = reading {
        *left -= octets.len();
    }
    Ok(octets)
}

/// What was likely meant by the name of a file that is not there.
fn other_name(flag: &str, name: &str) -> String {
    let names: Vec<_> = name.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if name.contains(" #") {
        "; all of this is its name, as a comment has a line of its own".into()
    } else if names.len() < 2 {
        String::new()
    } else if flag == CA_FILE {
        format!("; give each file by itself: {flag} {}", names.join(&format!(" {flag} ")))
    } else {
        format!("; give one file, into which `cat {}` puts all", names.join(" "))
    }
}

/// A pipe is what a shell gives for `<(command)`, and it is empty until the command has written. A named one
/// may never have a writer, its writer may never end, and a device may not either.
#[expect(clippy::disallowed_methods, reason = "there is no core yet that would be told the time")]
fn try_read(path: &Path, reading: Reading) -> io::Result<Vec<u8>> {
    let (mut file, kind) = file::open(path)?;
    let (octets_max, time_max, too_long) = match reading {
        Reading::First(time_max) => (OCTETS_MAX, time_max, TOO_LONG),
        Reading::Again(left) if kind.is_file() => (left.min(OCTETS_MAX), Duration::ZERO, GROWN),
        Reading::Again(_) => {
            return Err(io::Error::other("it is no file, and only files are read again"));
        }
    };
    if kind.is_char_device() || kind.is_block_device() {
        return Err(io::Error::other("it is a device; a file or a pipe was expected"));
    }
    let started = Instant::now();
    let mut octets = Vec::new();
    if kind.is_fifo() {
        await_octets(&file, time_max)?;
    }
    while octets.len() <= octets_max {
        let room = (octets_max + 1 - octets.len()) as u64;
        match (&mut file).take(room).read_to_end(&mut octets) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                await_octets(&file, time_max.saturating_sub(started.elapsed()))?;
            }
            Err(error) => return Err(error),
            Ok(_) if octets.len() <= octets_max => return Ok(octets),
            Ok(_) => break,
        }
    }
    Err(io::Error::other(too_long))
}

/// Waits until a pipe has something to read, or has had a writer that is gone.
fn await_octets(file: &File, time_max: Duration) -> io::Result<()> {
    let silent =
        || io::Error::other("it is a pipe that nothing is written to, or that does not end");
    let time_max = Timespec::try_from(time_max).map_err(|_| silent())?;
    loop {
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&time_max)) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(silent()),
            result => return Ok(result.map(drop)?),
        }
    }
}

/// The flags that name files.
pub(super) const CA_FILE: &str = "--ca-file";
pub(super) const CLIENT_CERT: &str = "--client-cert";
pub(super) const CLIENT_KEY: &str = "--client-key";

/// Five certificates with RSA keys.
const OCTETS_AGAIN: usize = 8 << 10;

/// Long enough for a command that fetches the certificates from elsewhere.
const PIPE_TIME_MAX: Duration = Duration::from_secs(10);

/// What is wrong with a file that is longer than it may be: when it is read first, and again.
const TOO_LONG: &str =
    "it has more than 1 MiB; certificates or a key in PEM form were expected, which take less";
const GROWN: &str = "with it the files of certificates have more octets together than are read again, as many as at \
                     the start or 8 KiB (this takes a restart)";

/// Four times Mozilla's roots.
const OCTETS_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;
    use std::{env, fs, process, thread};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn read_first(flag: &str, file: &Path, time_max: Duration) -> Result<Vec<u8>, String> {
        read(flag, file, &mut Reading::First(time_max))
    }

    /// A pipe with a name, of this test alone.
    fn named_pipe(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("dot-proxy-{name}-{}", process::id()));
        fs::remove_file(&path).ok();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    #[test]
    fn a_pipe_without_a_writer_is_not_waited_for_forever() {
        let path = named_pipe("silent");
        let error = read_first(CA_FILE, &path, SHORT).unwrap_err();
        assert_eq!(
            error,
            format!(
                "--ca-file {}: cannot be read: it is a pipe that nothing is written to, or that does not end",
                path.display()
            )
        );
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_pipe_is_read_to_its_end_however_late_it_comes() {
        let path = named_pipe("slow");
        let writer = thread::spawn({
            let path = path.clone();
            move || {
                // Waits for the reader.
                let mut pipe = File::options().write(true).open(path).unwrap();
                for part in ["one ", "two"] {
                    thread::sleep(Duration::from_millis(50));
                    pipe.write_all(part.as_bytes()).unwrap();
                }
            }
        });
        assert_eq!(read_first(CA_FILE, &path, LONG).unwrap(), b"one two");
        writer.join().unwrap();
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_pipe_does_not_go_on_for_ever_with_an_octet_now_and_then() {
        let path = named_pipe("endless");
        let writer = thread::spawn({
            let path = path.clone();
            move || {
                let mut pipe = File::options().write(true).open(path).unwrap();
                // Until the reader is gone.
                while pipe.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        assert!(read_first(CA_FILE, &path, SHORT).unwrap_err().ends_with("that does not end"));
        writer.join().unwrap();
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_has_more_than_such_a_file_is_not_read_to_its_end() {
        let path = env::temp_dir().join(format!("dot-proxy-large-{}", process::id()));
        for (len, is_read) in [(OCTETS_MAX, true), (OCTETS_MAX + 1, false), (1 << 40, false)] {
            File::create(&path).unwrap().set_len(len as u64).unwrap();
            let result = read_first(CA_FILE, &path, LONG);
            assert_eq!(result.as_ref().map(Vec::len).ok(), is_read.then_some(len));
            assert!(is_read || result.unwrap_err().contains("more than 1 MiB"));
        }
        fs::remove_file(path).unwrap();

        let path = named_pipe("large");
        let writer = thread::spawn({
            let path = path.clone();
            move || {
                let mut pipe = File::options().write(true).open(path).unwrap();
                while pipe.write_all(&[b'x'; 4096]).is_ok() {}
            }
        });
        assert!(read_first(CA_FILE, &path, LONG).unwrap_err().contains("more than 1 MiB"));
        writer.join().unwrap();
        fs::remove_file(path).unwrap();
    }

    /// What a shell gives for `<(command)` of a command that has ended.
    #[test]
    fn a_pipe_whose_writer_is_gone_ends() {
        for (written, expected) in [
            ("all", Ok(b"all".to_vec())),
            ("", Err("--ca-file PATH: is empty; something in PEM form was expected")),
        ] {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(written.as_bytes()).unwrap();
            drop(writer);
            let path = format!("/dev/fd/{}", reader.as_raw_fd());
            let expected = expected.map_err(|error| error.replace("PATH", &path));
            assert_eq!(read_first(CA_FILE, path.as_ref(), LONG), expected);
        }
    }

    #[test]
    fn a_name_that_is_more_than_one_is_shown_as_what_was_meant() {
        for (flag, name, expected) in [
            (CA_FILE, "/no/a", ""),
            (CA_FILE, "/no/a,", ""),
            (
                CA_FILE,
                "/no/a, /no/b",
                "; give each file by itself: --ca-file /no/a --ca-file /no/b",
            ),
            (CLIENT_CERT, "/no/a,/no/b", "; give one file, into which `cat /no/a /no/b` puts all"),
            (
                CA_FILE,
                "/no/a # of ours",
                "; all of this is its name, as a comment has a line of its own",
            ),
        ] {
            let error = read_first(flag, name.as_ref(), SHORT).unwrap_err();
            let words = "cannot be read: no such file or directory";
            assert_eq!(error, format!("{flag} {name}: {words}{expected}"));
        }
    }

    #[test]
    fn what_is_read_again_is_no_pipe_and_not_much_longer() {
        let path = named_pipe("again");
        let mut reading = Reading::Again(10);
        let error = read(CA_FILE, &path, &mut reading).unwrap_err();
        assert!(error.ends_with(": it is no file, and only files are read again"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "six...").unwrap();
        assert_eq!(read(CA_FILE, &path, &mut reading).unwrap(), b"six...");
        let error = read(CA_FILE, &path, &mut reading).unwrap_err();
        assert!(error.contains("more octets together than are read again"), "{error}");
        fs::write(&path, "four").unwrap();
        assert_eq!(read(CA_FILE, &path, &mut reading).unwrap(), b"four");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn devices_are_refused() {
        for device in ["/dev/null", "/dev/zero"] {
            assert_eq!(
                read_first(CA_FILE, device.as_ref(), LONG).unwrap_err(),
                format!(
                    "--ca-file {device}: cannot be read: it is a device; a file or a pipe was expected"
                )
            );
        }
    }
}
