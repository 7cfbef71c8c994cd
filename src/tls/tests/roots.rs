//! Files of authorities.

use super::*;

#[test]
fn roots_come_from_a_file() {
    let authority = Authority::new();
    // What else stands in such files does no harm.
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let key = KeyPair::generate().unwrap().serialize_pem();
    let pem = [&*authority.pem, "Issuer: CERTIFICATE\n", request, &key, &authority.pem].concat();
    let file = TempFile::new("good.pem", pem.as_bytes());
    let mut connector = connectors(&roots_in(&file.0), [named(NAME)].into_iter(), HYBRID, LIMITS)
        .unwrap()
        .pop()
        .unwrap();
    let trust = format!("the 2 roots in {}", file.0.display());
    assert_eq!(connector.roots.as_deref(), Some(&*trust));
    let server = authority.server(&rustls::version::TLS13, |_| ());
    Link::established(&mut connector, &server);

    let both = Files { builtin_roots: true, ..roots_in(&file.0) };
    let other = TempFile::new("other.pem", Authority::new().pem.as_bytes());
    let several = Files { roots: vec![file.0.clone(), other.0.clone()], ..Files::default() };
    let built_in =
        format!("{trust} or the {} built-in roots", webpki_roots::TLS_SERVER_ROOTS.len());
    for (files, trust) in
        [(both, built_in), (several, format!("{trust} or the root in {}", other.0.display()))]
    {
        let mut connector =
            connectors(&files, [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap().remove(0);
        assert_eq!(connector.roots.as_deref(), Some(&*trust));
        Link::established(&mut connector, &server);
    }

    let server = Authority::named("stranger").server(&rustls::version::TLS13, |_| ());
    let failure = Link::refused(&mut connector, &server);
    assert!(failure.detail.contains(&*file.0.to_string_lossy()), "{failure:?}");
}

#[test]
fn a_bad_file_of_roots_is_named_with_what_is_wrong() {
    let good = Authority::new().pem;
    let key = KeyPair::generate().unwrap().serialize_pem();
    let der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let passed_over = |how_many| {
        format!(
            "{how_many} certificates cannot be read; each is expected between lines of its \
             own, \"-----BEGIN CERTIFICATE-----\" and \"-----END CERTIFICATE-----\"; openssl x509 \
             -in FILE writes one so"
        )
    };
    for (content, error) in [
        (String::new(), "is empty; something in PEM form was expected"),
        (
            key,
            "holds \"-----BEGIN PRIVATE KEY-----\"; a certificate in PEM form, \
             \"-----BEGIN CERTIFICATE-----\", was expected",
        ),
        (good.replace("-----END", "====="), "certificate 1 is damaged: its END line is missing"),
        (
            good.clone() + &good.replacen('M', "!", 1),
            "certificate 2 is damaged: it is not valid base64",
        ),
        (good.clone() + der, "certificate 2 is damaged: it is not an X.509 certificate"),
        (good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), &passed_over("1 of 1")),
        (good.clone() + &good.replace("CERTIFICATE", "X509 CERTIFICATE"), &passed_over("1 of 2")),
        // Files put together whose last lines do not end.
        (good.trim_end().repeat(3), &passed_over("2 of 3")),
        (format!("{good}  {good}"), &passed_over("1 of 2")),
        (format!("\u{feff}{good}{good}"), &passed_over("1 of 2")),
    ] {
        let file = TempFile::new("bad.pem", content.as_bytes());
        let expected = format!("--ca-file {}: {error}", file.0.display());
        let error =
            connectors(&roots_in(&file.0), [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap_err();
        assert_eq!(error, expected);
    }
    let gone = Path::new("/nonexistent/roots.pem");
    assert_eq!(
        connectors(&roots_in(gone), [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap_err(),
        "--ca-file /nonexistent/roots.pem: cannot be read: no such file or directory"
    );
    assert_eq!(
        connectors(&roots_in(Path::new("/")), [named(NAME)].into_iter(), HYBRID, LIMITS)
            .unwrap_err(),
        "--ca-file /: cannot be read: is a directory; one file was expected: `cat` puts several into one, and \
         Docker makes a directory where the file to be mounted is not there"
    );
}

#[test]
fn the_built_in_roots_trust_none_of_ours() {
    let mut built_in =
        connectors(&Files::default(), [named(NAME)].into_iter(), HYBRID, LIMITS).unwrap();
    let server = Authority::new().server(&rustls::version::TLS13, |_| ());
    let failure = Link::refused(&mut built_in[0], &server);
    assert_eq!(failure.stage, Stage::Certificate);
    assert!(failure.detail.contains("built-in roots"), "{failure:?}");
    assert_eq!(
        connectors(&Files::default(), [named("not a name")].into_iter(), HYBRID, LIMITS)
            .unwrap_err(),
        "\"not a name\" is not a DNS name or an IP address"
    );
}
