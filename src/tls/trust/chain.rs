//! Chains of certificates, verified at a cost that whoever sent them cannot raise.
//!
//! webpki looks for a path to a root: it tries every order in which the names fit, reads all
//! certificates again in every step, checks up to 100 signatures, and compares names with name
//! constraints up to 250,000 times. That is seconds, in which nothing else is served, and most of it
//! comes before anybody is authenticated. So what a chain may ask for is bounded here, far above what
//! servers send: three certificates and four signatures.

use std::error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm,
};
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use webpki::{EndEntityCert, anchor_from_trusted_cert};

/// Refuses more certificates than any kind of server needs.
pub(super) fn check_count(rest: &[CertificateDer<'_>]) -> Result<(), TooCostly> {
    if rest.len() > OTHERS_MAX {
        return Err(TooCostly::Certificates { others: rest.len() });
    }
    Ok(())
}

/// Refuses a chain in which a path takes too long to find, or whose names take too long to compare with
/// name constraints.
pub(super) fn check_search(
    first: &EndEntityCert<'_>,
    rest: &[CertificateDer<'_>],
    roots: &RootCertStore,
) -> Result<(), TooCostly> {
    // A certificate that cannot be read is on no path.
    let others: Vec<_> =
        rest.iter().filter_map(|other| EndEntityCert::try_from(other).ok()).collect();
    let links: Vec<_> = others.iter().map(Link::of).collect();
    let own = Link::of(first);
    if steps(&mut vec![&own], &links) > STEPS_MAX {
        return Err(TooCostly::Orders);
    }
    let is_root_of =
        |subject: &[u8]| own.issuer == subject || links.iter().any(|link| link.issuer == subject);
    let of_roots = roots
        .roots
        .iter()
        .filter(|root| is_root_of(&root.subject))
        .filter_map(|root| Some(root.name_constraints.as_ref()?.len()));
    let of_others = rest.iter().filter_map(|other| {
        anchor_from_trusted_cert(other).ok()?.name_constraints.map(|constraints| constraints.len())
    });
    let constraints: usize = of_others.sum::<usize>() + of_roots.max().unwrap_or(0);
    if constraints > 0 {
        let names = first.valid_dns_names().count();
        if names * constraints > NAMES_BY_CONSTRAINTS_MAX {
            return Err(TooCostly::Names { names, constraints });
        }
    }
    Ok(())
}

/// What of a certificate decides where it is in a path.
#[derive(PartialEq, Eq)]
struct Link<'a> {
    subject: &'a [u8],
    issuer: &'a [u8],
    key: Vec<u8>,
}

impl<'a> Link<'a> {
    fn of(certificate: &'a EndEntityCert<'_>) -> Self {
        Self {
            subject: certificate.subject(),
            issuer: certificate.issuer(),
            key: certificate.subject_public_key_info().to_vec(),
        }
    }
}

/// How many certificates are taken up, one behind the other and each as often as it comes up, in a
/// search for a path that begins with `path` and leads nowhere.
fn steps<'a>(path: &mut Vec<&'a Link<'a>>, links: &'a [Link<'a>]) -> usize {
    let mut count = 0;
    for link in links {
        // No key is in a path twice under the same name (RFC 5280 section 6.1).
        let is_next = path.last().is_some_and(|head| head.issuer == link.subject)
            && !path
                .iter()
                .any(|before| (before.subject, &before.key) == (link.subject, &link.key));
        if is_next {
            path.push(link);
            count += 1 + steps(path, links);
            path.pop();
        }
    }
    count
}

/// The signatures that were checked for one chain. No signature is checked twice, and their number is
/// bounded.
#[derive(Debug, Default)]
pub(in crate::tls) struct Checks(Mutex<Checked>);

#[derive(Debug, Default)]
struct Checked {
    /// Results of checks, each with the digest of all that the check depends on.
    results: Vec<([u8; 32], Result<(), InvalidSignature>)>,
    /// A signature was refused because there were too many.
    is_over: bool,
}

impl Checks {
    /// `algorithms`, each limited to the checks that are left.
    pub(super) fn limit(&self, algorithms: &WebPkiSupportedAlgorithms) -> Vec<Limited<'_>> {
        algorithms.all.iter().map(|&algorithm| Limited { algorithm, checks: self }).collect()
    }

    /// The better reason for a failure, if there were more signatures than may be checked.
    pub(super) fn reason(&self) -> Option<TooCostly> {
        let checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checked.is_over.then_some(TooCostly::Signatures)
    }
}

/// An algorithm that checks as many signatures as it may, and finds all others wrong.
#[derive(Debug)]
pub(super) struct Limited<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    checks: &'a Checks,
}

impl SignatureVerificationAlgorithm for Limited<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let mut context = Context::new(&SHA256);
        let (key_algorithm, algorithm) = (self.public_key_alg_id(), self.signature_alg_id());
        for part in [&*key_algorithm, &*algorithm, public_key, message, signature] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let digest = context.finish();
        let digest = digest.as_ref().try_into().expect("SHA-256 gives 32 octets");

        let mut checked = self.checks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, result)) = checked.results.iter().find(|(known, _)| *known == digest) {
            return *result;
        }
        if checked.results.len() == SIGNATURES_MAX {
            checked.is_over = true;
            return Err(InvalidSignature);
        }
        let result = self.algorithm.verify_signature(public_key, message, signature);
        checked.results.push((digest, result));
        result
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

/// A chain was refused because it would take too long to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tls) enum TooCostly {
    Certificates { others: usize },
    Names { names: usize, constraints: usize },
    Orders,
    Signatures,
}

impl error::Error for TooCostly {}

impl fmt::Display for TooCostly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificates { others } => write!(
                f,
                "the server sent {others} certificates besides its own; at most {OTHERS_MAX} are \
                 allowed"
            ),
            Self::Names { names, constraints } => write!(
                f,
                "the certificate has {names} names, which are too many for {constraints} octets of \
                 name constraints above it: at most {} are allowed",
                NAMES_BY_CONSTRAINTS_MAX / constraints
            ),
            Self::Orders => write!(
                f,
                "the server sent several certificates of the same names, which can be put together \
                 in more ways than are tried; only those on the way to the root were expected"
            ),
            Self::Signatures => write!(
                f,
                "the server sent certificates with more signatures to check than the \
                 {SIGNATURES_MAX} that are allowed; only those on the way to the root were expected"
            ),
        }
    }
}

impl From<TooCostly> for Error {
    fn from(why: TooCostly) -> Self {
        CertificateError::Other(OtherError(Arc::new(why))).into()
    }
}

/// Certificates besides the server's own. webpki takes no path with more; public servers send one or two.
const OTHERS_MAX: usize = 6;

/// Steps of a search. A path of six takes six, two issuers of two certificates each take 14, and six that
/// fit one behind the other in any order 1,956. 32 KiB of certificates take half a million instructions a
/// step.
const STEPS_MAX: usize = 32;

/// Signatures checked: those of the longest path, and one that is found wrong. With P-384 each takes 11
/// million instructions.
const SIGNATURES_MAX: usize = OTHERS_MAX + 2;

/// Names of a certificate, times octets of name constraints above it. A hundred names may have a thousand
/// octets of constraints above them, which are 50 of usual length. Constraints have five octets or more,
/// and to compare a name with one takes a thousand instructions.
const NAMES_BY_CONSTRAINTS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
        NameConstraints, PublicKeyData,
    };
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::super::Verifier;
    use super::super::keys::{self, tests::Rsa};
    use super::super::unfit::Unfit;
    use super::*;
    use crate::tls::pin::Pin;
    use crate::tls::tests::NAME;

    /// What makes a chain for [`NAME`] of a key and the root.
    type Make = fn(&KeyPair, &Maker) -> Vec<CertificateDer<'static>>;

    #[test]
    fn a_chain_that_would_cost_too_much_is_refused() {
        let root = Maker::new("root");
        let others = |others| Err(TooCostly::Certificates { others });
        let cases: [(&str, Make, Result<(), TooCostly>); 11] = [
            ("six in a row", |key, root| row(6, key, root), Ok(())),
            ("seven in a row", |key, root| row(7, key, root), others(7)),
            (
                "six that are of no use",
                |key, root| [vec![root.leaf(key)], strangers(6)].concat(),
                Ok(()),
            ),
            (
                "seven that are of no use",
                |key, root| [vec![root.leaf(key)], strangers(7)].concat(),
                others(7),
            ),
            (
                "hundreds that are no certificates",
                |key, root| {
                    [vec![root.leaf(key)], vec![CertificateDer::from(vec![0; 9]); 300]].concat()
                },
                others(300),
            ),
            (
                "six times the root",
                |key, root| [vec![root.leaf(key)], vec![root.itself(); 6]].concat(),
                Ok(()),
            ),
            ("three of one name, the last is right", |key, root| namesakes(3, key, root), Ok(())),
            (
                "six of one name, the last is right",
                |key, root| namesakes(6, key, root),
                Err(TooCostly::Signatures),
            ),
            (
                "four that issue each other",
                |key, _| circle(4, key),
                // Refused, but not for this: 64 steps are more than may be.
                Err(TooCostly::Orders),
            ),
            (
                "a hundred names and 50 constraints",
                |key, root| constrained(100, 50, key, root),
                Ok(()),
            ),
            (
                "a thousand names and 50 constraints",
                |key, root| constrained(1_000, 50, key, root),
                Err(TooCostly::Names { names: 1_000, constraints: 954 }),
            ),
        ];
        for (what, make, expected) in cases {
            let key = KeyPair::generate().unwrap();
            let chain = make(&key, &root);
            let of_key = keys::pin(&key.subject_public_key_info().into());
            let of_root = keys::pin(&root.issuer.key().subject_public_key_info().into());
            for (name, pins) in
                [(true, &[][..]), (true, &[of_key]), (true, &[of_root]), (false, &[of_key])]
            {
                let expected = match expected {
                    // Nothing is looked for where nothing counts but the key.
                    Err(TooCostly::Certificates { .. }) => expected,
                    _ if !name => Ok(()),
                    _ => expected,
                };
                let seen = verify(&chain, name.then_some(&root), pins);
                assert_eq!(
                    seen,
                    expected.map_err(Error::from).map_err(|error| error.to_string()),
                    "{what}"
                );
            }
        }
    }

    #[test]
    fn the_words_say_how_much_was_sent_and_what_is_allowed() {
        for (why, words) in [
            (
                TooCostly::Certificates { others: 328 },
                "the server sent 328 certificates besides its own; at most 6 are allowed",
            ),
            (
                TooCostly::Names { names: 900, constraints: 200 },
                "the certificate has 900 names, which are too many for 200 octets of name \
                 constraints above it: at most 500 are allowed",
            ),
        ] {
            assert_eq!(why.to_string(), words);
        }
    }

    #[test]
    fn steps_are_those_of_webpki() {
        let link = |subject: &'static str, issuer: &'static str, key: u8| Link {
            subject: subject.as_bytes(),
            issuer: issuer.as_bytes(),
            key: vec![key],
        };
        let leaf = link("leaf", "a", 0);
        for (what, links, expected) in [
            ("none", vec![], 0),
            ("one that fits", vec![link("a", "root", 1)], 1),
            ("one that does not", vec![link("b", "root", 1)], 0),
            ("three in a row", vec![link("c", "d", 3), link("b", "c", 2), link("a", "b", 1)], 3),
            ("two of two", vec![link("a", "b", 1), link("a", "b", 2), link("b", "c", 3)], 4),
            ("a copy", vec![link("a", "a", 1), link("a", "a", 1)], 2),
            ("in a circle", (1..=3).map(|key| link("a", "a", key)).collect(), 15),
            ("in the longest", (1..=6).map(|key| link("a", "a", key)).collect(), 1_956),
        ] {
            assert_eq!(steps(&mut vec![&leaf], &links), expected, "{what}");
        }
    }

    #[test]
    fn a_weak_key_of_an_issuer_is_told_apart_from_a_wrong_signature() {
        let (root, namesake) = (Maker::new("root"), Maker::new("root"));
        let key = KeyPair::generate().unwrap();
        let error = verify(&[namesake.leaf(&key)], Some(&root), &[]).unwrap_err();
        assert_eq!(error, Error::from(Unfit::Signature).to_string());

        let weak = Issuer::new(root.params.clone(), Rsa::new(1_024));
        let mut roots = RootCertStore::empty();
        roots.add(root.params.self_signed(weak.key()).unwrap().der().clone()).unwrap();
        let leaf = CertificateParams::new([NAME.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &weak).unwrap().der().clone();
        let algorithms = default_provider().signature_verification_algorithms;
        let name = ServerName::try_from(NAME).unwrap();
        let error = Verifier::new(&[], Some(Arc::new(roots)), algorithms)
            .verify(&Checks::default(), &leaf, &[], &name, UnixTime::now())
            .unwrap_err();
        let expected = Error::from(Unfit::Rsa { whose: "an issuer's", bits: 1_024 });
        assert_eq!(error.to_string(), expected.to_string());
    }

    fn verify(
        chain: &[CertificateDer<'static>],
        root: Option<&Maker>,
        pins: &[Pin],
    ) -> Result<(), String> {
        let roots = root.map(|root| {
            let mut roots = RootCertStore::empty();
            roots.add(root.itself()).unwrap();
            Arc::new(roots)
        });
        let algorithms = default_provider().signature_verification_algorithms;
        let name = ServerName::try_from(NAME).unwrap();
        let (first, rest) = chain.split_first().unwrap();
        Verifier::new(pins, roots, algorithms)
            .verify(&Checks::default(), first, rest, &name, UnixTime::now())
            .map_err(|error| error.to_string())
    }

    /// An authority.
    struct Maker {
        params: CertificateParams,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Maker {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let issuer = Issuer::new(params.clone(), KeyPair::generate().unwrap());
            Self { params, issuer }
        }

        fn itself(&self) -> CertificateDer<'static> {
            self.params.self_signed(self.issuer.key()).unwrap().der().clone()
        }

        fn by(&self, above: &Self) -> CertificateDer<'static> {
            self.params.signed_by(self.issuer.key(), &above.issuer).unwrap().der().clone()
        }

        fn leaf(&self, key: &KeyPair) -> CertificateDer<'static> {
            let params = CertificateParams::new([NAME.to_owned()]).unwrap();
            params.signed_by(key, &self.issuer).unwrap().der().clone()
        }
    }

    fn row(count: usize, key: &KeyPair, root: &Maker) -> Vec<CertificateDer<'static>> {
        let makers: Vec<_> = (0..count).map(|n| Maker::new(&format!("issuer {n}"))).collect();
        let mut chain = vec![makers[0].leaf(key)];
        chain.extend(makers.windows(2).map(|pair| pair[0].by(&pair[1])));
        chain.extend(makers.last().map(|last| last.by(root)));
        chain
    }

    fn strangers(count: usize) -> Vec<CertificateDer<'static>> {
        let other = Maker::new("stranger");
        (0..count).map(|_| Maker::new("of no use").by(&other)).collect()
    }

    fn namesakes(count: usize, key: &KeyPair, root: &Maker) -> Vec<CertificateDer<'static>> {
        let makers: Vec<_> = (0..count).map(|_| Maker::new("issuer")).collect();
        let own = makers[count - 1].leaf(key);
        [own].into_iter().chain(makers.iter().map(|maker| maker.by(root))).collect()
    }

    fn circle(count: usize, key: &KeyPair) -> Vec<CertificateDer<'static>> {
        let other = Maker::new("circle");
        let others = (0..count).map(|_| Maker::new("circle").by(&other));
        [other.leaf(key)].into_iter().chain(others).collect()
    }

    fn constrained(
        names: usize,
        constraints: usize,
        key: &KeyPair,
        root: &Maker,
    ) -> Vec<CertificateDer<'static>> {
        let mut maker = Maker::new("issuer");
        maker.params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: (0..constraints)
                .map(|n| GeneralSubtree::DnsName(format!("n{n:02}.example.org")))
                .collect(),
        });
        let names = (1..names).map(|n| format!("n{n}.example.net")).chain([NAME.to_owned()]);
        let params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        let own = params.signed_by(key, &maker.issuer).unwrap().der().clone();
        vec![own, maker.by(root)]
    }
}
