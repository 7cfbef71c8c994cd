//! What several upstreams that fail have in common, and what to do about it.

use super::Upstreams;
use super::upstream::{AnsweredBy, Outage};
use crate::forwarder::action::Stage;

impl Upstreams {
    /// What is to be added to the reason why an upstream failed.
    pub(crate) fn hint(&self, stage: Stage, answered_by: AnsweredBy) -> &'static str {
        self.find(stage, answered_by).hint()
    }

    /// What is to be put in front of that reason, and behind it, for a client, who may read no more than the start.
    pub(crate) fn words(
        &self,
        stage: Stage,
        answered_by: AnsweredBy,
    ) -> (&'static str, &'static str) {
        let found = self.find(stage, answered_by);
        // Once is enough.
        (found.heading(), if found.heading().is_empty() { found.hint() } else { "" })
    }

    /// Why no upstream is usable, as the first in order has it, and what to do if several fail alike; `None` if one is.
    pub(crate) fn outage(&self) -> Option<(&str, &Outage, Option<&'static str>)> {
        let first = self.list.iter().next().filter(|_| !self.is_something_usable())?;
        let outage = first.outage()?;
        Some((&first.name, outage, self.find(outage.stage, outage.answered_by).advice()))
    }

    /// What may be behind a failure like this, with all others.
    fn find(&self, stage: Stage, answered_by: AnsweredBy) -> Finding {
        let failed = self.list.iter().filter_map(|it| Some((it.operator, it.outage()?)));
        let failed = failed.map(|(operator, outage)| (operator, outage.stage, outage.answered_by));
        Finding::of(stage, answered_by, failed)
    }
}

/// What may be behind a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Somebody in the network answers in the place of several operators.
    Portal,
    /// Several addresses that should speak DNS do not, or speak an old TLS.
    Intercepted,
    /// Nothing more than what failed.
    Failed(Stage),
}

impl Finding {
    /// One server may have another's certificate, or be no DNS server. That those of several operators fail in the
    /// same way at once is what a network looks like that answers for all.
    fn of(
        stage: Stage,
        answered_by: AnsweredBy,
        failed: impl Iterator<Item = (u8, Stage, AnsweredBy)>,
    ) -> Self {
        let (mut operators, mut addresses) = (0_u16, 0);
        for (operator, _, by) in failed.filter(|it| it.1 == stage) {
            addresses += 1;
            if by == AnsweredBy::Impostor {
                operators |= 1_u16.checked_shl(operator.into()).unwrap_or_default();
            }
        }
        match stage {
            _ if answered_by == AnsweredBy::Impostor && operators.count_ones() > 1 => Self::Portal,
            Stage::Negotiation if addresses > 1 => Self::Intercepted,
            _ => Self::Failed(stage),
        }
    }

    /// In a line about one upstream, behind the reason.
    fn hint(self) -> &'static str {
        match self {
            Self::Portal => {
                "; servers of other operators fail in the same way, so this looks like a captive portal, or a network \
                 that intercepts TLS: open an http:// page in a browser and log in there, or use another network"
            }
            Self::Intercepted => {
                "; other upstreams fail in the same way: something in between may intercept TLS"
            }
            Self::Failed(_) => "",
        }
    }

    /// In front of the reason, where no more than its start may fit.
    fn heading(self) -> &'static str {
        match self {
            Self::Portal => {
                "captive portal? Open an http:// page in a browser and log in, or use another network. "
            }
            Self::Intercepted | Self::Failed(_) => "",
        }
    }

    /// What to do while no upstream is usable, if that is more than what failed says.
    fn advice(self) -> Option<&'static str> {
        match self {
            Self::Portal => Some(
                "it looks like a captive portal, or a network that intercepts TLS: open an http:// page in a browser \
                 and log in there, or use another network",
            ),
            Self::Intercepted => Some(
                "something in between may intercept TLS: use another network, or ask who runs this one",
            ),
            Self::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_operators_that_fail_alike_look_like_a_portal_and_one_never_does() {
        use Finding::{Failed, Intercepted, Portal};
        use Stage::{Certificate, Connect, Negotiation, Read, Tls};

        let by = |is_impostor| {
            if is_impostor { AnsweredBy::Impostor } else { AnsweredBy::Upstream }
        };

        for (stage, is_impostor, failed, expected) in [
            (Certificate, true, &[(0, Certificate, true), (1, Certificate, true)][..], Portal),
            (Tls, true, &[(0, Tls, true), (0, Tls, true), (2, Tls, true)], Portal),
            // Four addresses of one operator.
            (Certificate, true, &[(0, Certificate, true); 4], Failed(Certificate)),
            (Tls, true, &[(3, Tls, true); 4], Failed(Tls)),
            // In different ways: one has another's certificate, the other is down.
            (Certificate, true, &[(0, Certificate, true), (1, Tls, true)], Failed(Certificate)),
            (
                Certificate,
                true,
                &[(0, Certificate, true), (1, Connect, false)],
                Failed(Certificate),
            ),
            // A clock that is wrong is no portal, nor is what is down.
            (
                Certificate,
                false,
                &[(0, Certificate, false), (1, Certificate, false)],
                Failed(Certificate),
            ),
            (
                Certificate,
                false,
                &[(0, Certificate, true), (1, Certificate, true)],
                Failed(Certificate),
            ),
            (Connect, false, &[(0, Connect, false), (1, Connect, false)], Failed(Connect)),
            (Read, false, &[(0, Read, false), (1, Read, false)], Failed(Read)),
            // No DNS servers at all.
            (Negotiation, false, &[(0, Negotiation, false)], Failed(Negotiation)),
            (Negotiation, false, &[(0, Negotiation, false); 2], Intercepted),
            (Negotiation, false, &[(0, Negotiation, false), (1, Negotiation, false)], Intercepted),
            // Of one that is asked no more.
            (
                Certificate,
                true,
                &[(0, Certificate, true), (u8::MAX, Certificate, true)],
                Failed(Certificate),
            ),
        ] {
            let found =
                Finding::of(stage, by(is_impostor), failed.iter().map(|it| (it.0, it.1, by(it.2))));
            assert_eq!(found, expected, "{stage} {failed:?}");
            assert_eq!(found.advice().is_none(), matches!(found, Failed(_)));
            assert_eq!(found.hint().is_empty(), matches!(found, Failed(_)));
            assert_eq!(found.heading().is_empty(), found != Portal);
        }
    }
}
