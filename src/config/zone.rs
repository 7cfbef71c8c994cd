//! Zones as they are written on the command line.

use super::upstream::{LABEL_LEN_MAX, NAME_LEN_MAX};

/// A zone's name as it stands in messages, in lower case, or what is wrong with it. `example` is a right one, and
/// `all` does for all names.
pub(super) fn zone(text: &str, example: &str, all: &str) -> Result<Box<[u8]>, String> {
    let form = format!("write a name, such as {example}");
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(format!("is above all names; write {all}"));
    }
    if !name.is_ascii() {
        return Err("is not in its ASCII form (A-labels, xn--...)".into());
    }
    if name.len() > NAME_LEN_MAX {
        return Err(format!("is {} octets long, more than {NAME_LEN_MAX}; {form}", name.len()));
    }
    let mut octets = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        let problem = if label.is_empty() {
            "has an empty label"
        } else if label.len() > LABEL_LEN_MAX {
            "has a label of more than 63 octets"
        } else if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b)) {
            // The slash is for reverse zones of less than an octet (RFC 2317 section 4).
            "has something else than letters, digits, hyphens, underscores and slashes"
        } else {
            octets.push(label.len() as u8);
            octets.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
            continue;
        };
        return Err(format!("{problem}; {form}"));
    }
    octets.push(0);
    Ok(octets.into())
}

pub(super) const ZONE_EXAMPLE: &str = "10.in-addr.arpa";

pub(super) const PRIVATE_ZONE_EXAMPLE: &str = "corp.example";

#[cfg(test)]
mod tests {
    use crate::config::tests::{assert_errors, config, with_long_names};
    use crate::forwarder::{PrivateAnswers, SpecialNames};

    #[test]
    fn special_names() {
        let names = |line: &str| config(line).policy.special_names;
        let except = |zones: &[&[u8]]| SpecialNames::Local {
            forwarded: zones.iter().map(|zone| (*zone).into()).collect(),
        };
        assert_eq!(names("--special-names local"), except(&[]));
        assert_eq!(names("--special-names=forward"), SpecialNames::Forward);
        let forwarded = names("--forward-zone 10.IN-addr.arpa --forward-zone=10.in-addr.arpa.");
        assert_eq!(forwarded, except(&[b"\x0210\x07in-addr\x04arpa\0"]), "one zone");
        let forwarded = names("--forward-zone=0/25_a.10.In-addr.arpa --forward-zone=arpa");
        let below = b"\x060/25_a\x0210\x07in-addr\x04arpa\0";
        assert_eq!(forwarded, except(&[below, b"\x04arpa\0"]));
        let forwarded = names("--forward-zone=home.arpa --special-names=forward");
        assert_eq!(forwarded, SpecialNames::Forward);
        let longest = format!("{}test", "a.".repeat(124));
        let octets = [&b"\x01a".repeat(124)[..], b"\x04test\0"].concat();
        assert_eq!(names(&format!("--forward-zone {longest}")), except(&[&octets]));
    }

    #[test]
    fn bad_forward_zones_are_named_with_what_would_be_right() {
        let table = r"
            .               => is above all names; write --special-names forward
            10.0.0.0/8      => is an address; write the name of its reverse zone, such as 10.in-addr.arpa
            192.168.1.1     => is an address; write the name of its reverse zone
            fd00::/8        => is an address; write the name of its reverse zone, such as d.f.ip6.arpa
            172.16.0.0/12   => such as 172.in-addr.arpa
            192.168.1.77    => such as 1.168.192.in-addr.arpa
            fd00:1::1       => such as 0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa
            example.com     => has no special names in it, and all others are forwarded anyway; leave it out
            128.100.in-addr.arpa => has no special names in it
            ome.arpa        => has no special names in it
            /home.arpa/192.168.1.1 => is dnsmasq's notation of a zone with a server of its own; here its names go to the upstreams: write home.arpa
            bücher.test => is not in its ASCII form (A-labels, xn--...)
            home..arpa      => has an empty label; write a name, such as 10.in-addr.arpa
            .home.arpa      => is in another form than a name; write home.arpa, which stands for all below it
            home.arpa..     => has an empty label
            *.home.arpa     => is in another form than a name; write home.arpa
            a*b.home.arpa   => has something else than letters, digits, hyphens, underscores and slashes
            a\.b           => has something else than
            home.arpa,test  => is 2 in one; write --forward-zone home.arpa --forward-zone test
            LABEL.test      => has a label of more than 63 octets
            LONG-NAME       => is 254 octets long, more than 253";
        assert_errors("--forward-zone", &with_long_names(table));
    }

    #[test]
    fn private_answers() {
        let answers = |line: &str| config(line).policy.private_answers;
        let strip = |loopback, zones: &[&[u8]]| PrivateAnswers::Strip {
            loopback,
            except: zones.iter().map(|zone| (*zone).into()).collect(),
            except_special: false,
        };
        assert_eq!(answers(""), PrivateAnswers::Pass);
        assert_eq!(answers("--private-zone corp.example"), PrivateAnswers::Pass);
        let warnings = |line: &str| config(line).warnings.concat();
        assert!(
            warnings("--private-zone corp.example").starts_with("--private-zone: changes nothing")
        );
        assert_eq!(warnings("--private-answers strip --private-zone corp.example"), "");
        assert_eq!(answers("--private-answers strip"), strip(false, &[]));
        assert_eq!(answers("--private-answers=strip-loopback"), strip(true, &[]));
        let forward = config("--special-names forward --private-answers strip").policy;
        let PrivateAnswers::Strip { except_special, .. } = forward.private_answers else {
            panic!()
        };
        assert!(except_special, "names here that an upstream is asked for");
        let home = "--private-answers strip --private-zone nas.home.arpa";
        assert_eq!(
            warnings(home),
            "--private-zone nas.home.arpa.: changes nothing, as its names are special and answered here; write \
             --forward-zone nas.home.arpa. in its place"
        );
        assert_eq!(warnings(&format!("{home} --special-names forward")), "");
        assert_eq!(warnings(&format!("{home} --forward-zone home.arpa")), "");
        let zones =
            "--private-zone Corp.Example. --private-zone corp.example --forward-zone home.arpa";
        let both: [&[u8]; 2] = [b"\x04corp\x07example\0", b"\x04home\x04arpa\0"];
        assert_eq!(answers(&format!("--private-answers strip {zones}")), strip(false, &both));
        let table = r"
            .               => is above all names; write --private-answers pass
            10.0.0.0/8      => is an address; write the name that has it, or one above, such as corp.example
            a..b            => has an empty label; write a name, such as corp.example
            https://corp.example:8443/a/b => is in another form than a name; write corp.example, which
            ||corp.example^ => write corp.example, which stands for all below it
            corp.example:   => write corp.example
            /corp.example/lan/ => is 2 in one; write --private-zone corp.example --private-zone lan
            'corp.example lan' => is 2 in one; write --private-zone corp.example --private-zone lan
            *               => has something else than
            /corp.example/  => is in another form than a name; write corp.example, which";
        assert_errors("--private-zone", table);
        let table = r"
            --private-answers   => --private-answers: the value is missing; give pass, strip or strip-loopback
            --private-answers drop => --private-answers drop: is not known; write pass, strip or strip-loopback
            --private-answers=pass --private-answers=strip => --private-answers strip: is given twice
            --private-zone      => --private-zone: the value is missing; give a name, such as corp.example
            --stop-dns-rebind   => --stop-dns-rebind: unknown flag; write --private-answers strip-loopback, and --private-zone NAME
            --rebind-protection => write --private-answers strip-loopback, and
            --deny-answer-addresses => write --private-answers strip, and
            --bogus-priv    => leave it out, or write --special-names local
            --except-from corp.example => write --private-zone corp.example
            --rebind-localhost-ok => --rebind-localhost-ok: unknown flag; write --private-answers strip
            --rebind-domain-ok corp.example => write --private-zone corp.example
            --private-domain=corp.example => write --private-zone corp.example
            --private-address 10.0.0.0/8 => write --private-answers strip, and --private-zone NAME";
        assert_errors("", table);
    }
}
