//! Files that a user names, and what may stand in their place.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file for reading, and says what it is. Nothing is waited for, as a pipe that has no writer is opened, too.
/// What has this name may be another thing the next moment, so that nothing else tells what a file is.
pub(crate) fn open(path: &Path) -> io::Result<(File, FileType)> {
    // They mean nothing to a file. A terminal would become that of the process, and send it SIGHUP.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    Ok((file, kind))
}

/// The text of a file, such as `/etc/passwd`, in which there may be names in any encoding.
pub(crate) fn text(path: &Path) -> Option<String> {
    let (mut file, kind) = open(path).ok()?;
    let mut octets = Vec::new();
    // A device may not end.
    kind.is_file().then(|| file.read_to_end(&mut octets).ok())??;
    Some(String::from_utf8_lossy(&octets).into_owned())
}

/// What to do about a file that the system does not let this program read, behind the line that says so.
pub(crate) const NOT_PERMITTED: &str = "; the user that this program runs as must be able to read it and to enter the \
                                        directories above it";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;
    use std::{env, fs, process};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_pipe_that_nobody_writes_to_is_opened_at_once() {
        let path = env::temp_dir().join(format!("dot-proxy-file-{}", process::id()));
        fs::remove_file(&path).ok();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(open(&path).unwrap().1.is_fifo());
        assert_eq!([text(&path), text("/dev/zero".as_ref())], [None, None]);
        fs::remove_file(&path).unwrap();
        assert!(open(&env::temp_dir()).unwrap().1.is_dir());
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, b"a\xe9:1\nb:2").unwrap();
        assert_eq!(text(&path).unwrap(), "a\u{fffd}:1\nb:2");
        fs::remove_file(&path).unwrap();
    }
}
