//! Files that a user names, and what may stand in their place.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file for reading, and says what it is. Nothing is waited for, as a pipe that has no writer is opened, too.
pub(crate) fn open(path: &Path) -> io::Result<(File, FileType)> {
    // The flag means nothing to a file.
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblock).open(path)?;
    let kind = file.metadata()?.file_type();
    Ok((file, kind))
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
        fs::remove_file(&path).unwrap();
        assert!(open(&env::temp_dir()).unwrap().1.is_dir());
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
