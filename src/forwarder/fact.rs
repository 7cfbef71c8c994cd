//! Changes of state that the person who runs this program is told.

use std::fmt;
use std::time::Duration;

use super::Stage;

/// A change of state worth a log line; `Display` gives the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A source outside the addresses that are served asked; said once.
    SourceRefused,
    /// An upstream became unusable.
    UpstreamFailed {
        /// Its display name.
        upstream: Box<str>,
        /// The phase of the attempt that failed.
        stage: Stage,
        /// What happened.
        detail: Box<str>,
    },
    /// Upstreams are still unusable, this one among them; at most once a minute.
    UpstreamStillFailed {
        /// Its display name.
        upstream: Box<str>,
        /// For how long.
        down: Duration,
        /// Attempts that failed since then.
        attempts: u64,
        /// The phase of the last attempt.
        stage: Stage,
        /// What happened then.
        detail: Box<str>,
        /// Upstreams that are not usable now.
        failed: usize,
        /// Upstreams there are.
        of: usize,
    },
    /// An upstream does not understand EDNS (RFC 6891 section 7); said once.
    UpstreamWithoutEdns {
        /// Its display name.
        upstream: Box<str>,
    },
    /// An upstream can be used again.
    UpstreamUsable {
        /// Its display name.
        upstream: Box<str>,
        /// How long it was unusable.
        down: Duration,
    },
}

impl Fact {
    /// How much it matters.
    pub fn level(&self) -> log::Level {
        match self {
            Self::SourceRefused
            | Self::UpstreamFailed { .. }
            | Self::UpstreamStillFailed { .. } => log::Level::Warn,
            Self::UpstreamUsable { .. } | Self::UpstreamWithoutEdns { .. } => log::Level::Info,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceRefused => f.write_str(
                "a query from another network was dropped, as all such will be: only loopback, \
                 private, link-local and unique-local addresses are served",
            ),
            Self::UpstreamFailed { upstream, stage, detail } => {
                write!(f, "{upstream}: not usable: {stage}: {detail}")
            }
            Self::UpstreamStillFailed { upstream, down, attempts, stage, detail, failed, of } => {
                write!(
                    f,
                    "{upstream}: still not usable after {} s and {attempts} attempts, the last: \
                 {stage}: {detail} ({failed} of {of} upstreams not usable)",
                    down.as_secs(),
                )
            }
            Self::UpstreamWithoutEdns { upstream } => write!(
                f,
                "{upstream}: does not understand EDNS: queries that it refuses for that are sent again \
                 without, and unpadded"
            ),
            Self::UpstreamUsable { upstream, down } => {
                write!(f, "{upstream}: usable again after {:.1} s", down.as_secs_f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_upstream_phase_and_cause() {
        let upstream: Box<str> = "192.0.2.1#dot.example".into();
        let detail: Box<str> = "connection refused".into();
        let failed = Fact::UpstreamFailed {
            upstream: upstream.clone(),
            stage: Stage::Connect,
            detail: detail.clone(),
        };
        assert_eq!(
            failed.to_string(),
            "192.0.2.1#dot.example: not usable: connect: connection refused"
        );
        let down = Duration::from_millis(61_234);
        let still = Fact::UpstreamStillFailed {
            upstream: upstream.clone(),
            down,
            attempts: 7,
            stage: Stage::Connect,
            detail,
            failed: 2,
            of: 4,
        };
        assert_eq!(
            still.to_string(),
            "192.0.2.1#dot.example: still not usable after 61 s and 7 attempts, the last: connect: \
             connection refused (2 of 4 upstreams not usable)"
        );
        let usable = Fact::UpstreamUsable { upstream, down };
        assert_eq!(usable.to_string(), "192.0.2.1#dot.example: usable again after 61.2 s");
    }
}
