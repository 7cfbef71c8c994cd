//! Users as they are written on the command line.

use super::Host;
use super::suggest::shown;
use crate::host::rights::Ids;

/// The user that is meant by `USER` or `USER:GROUP`, each a name or a number, or what is wrong with it. The
/// group is that of the name in `/etc/passwd`, or has the number of the user.
pub(super) fn user(text: &str, host: Host) -> Result<Ids, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() {
        return Err("has no user before the colon; write USER:GROUP".into());
    }
    let is_user = |user: &str| matches!(number(user), Ok(Some(_))) || (host.user)(user).is_some();
    if !is_user(user) {
        // As chown took it once, and as others write it.
        if let Some((user, group)) = text.split_once(['.', '/', ',', ' ', '@'])
            && is_user(user)
        {
            let (user, group) = (shown(user), shown(group.trim()));
            return Err(format!("is in another form than USER[:GROUP]; write {user}:{group}"));
        }
        let lower = text.to_ascii_lowercase();
        if lower.split(':').next().is_some_and(is_user) {
            return Err(format!("is not in /etc/passwd; did you mean {}?", shown(&lower)));
        }
    }
    let gid = match group {
        // As chown takes it.
        "" => None,
        group => Some(number(group)?.or_else(|| (host.group)(group)).ok_or_else(|| {
            let user = shown(user);
            match (host.user)(group) {
                Some(Ids { gid, .. }) => {
                    let group = shown(group);
                    format!("{group} is a user and no group; write {user}:{gid} for the group of that user")
                }
                None => format!(
                    "the group is not in /etc/group; write {user}:GID, or {user} for its own group"
                ),
            }
        })?),
    };
    let mut ids = match number(user)? {
        Some(uid) => Ids { uid, gid: uid },
        // Where there is no /etc/passwd, as in an image that holds nothing else, there is root.
        None if user == "root" => Ids::ROOT,
        None => {
            (host.user)(user).ok_or("is not in /etc/passwd; give UID:GID, such as 65534:65534")?
        }
    };
    ids.gid = gid.unwrap_or(ids.gid);
    if ids.uid == 0 && ids.gid != 0 {
        return Err("is root with another group; write root, or another user".into());
    }
    Ok(ids)
}

/// The number that is written here, if it is one.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) if number <= ID_MAX => Ok(Some(number)),
        _ => Err(format!("is out of range: 0 to {ID_MAX}")),
    }
}

/// The greatest number of a user or group; the next one stands for none (setresuid(2)).
const ID_MAX: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{assert_errors, config};

    #[test]
    fn users_by_name_and_by_number() {
        for (typed, expected) in [
            ("", None),
            ("--user dns", Some((100, 101))),
            ("--user dns:7", Some((100, 7))),
            ("--user dns:", Some((100, 101))),
            ("--user 7:", Some((7, 7))),
            ("--user dns:mail", Some((100, 8))),
            ("--user 7:mail", Some((7, 8))),
            ("--user 65534", Some((65_534, 65_534))),
            ("--user 1000:0", Some((1000, 0))),
            ("--user root", Some((0, 0))),
            ("--user 0", Some((0, 0))),
            ("--user 4294967294", Some((u32::MAX - 1, u32::MAX - 1))),
        ] {
            let expected = expected.map(|(uid, gid)| Ids { uid, gid });
            assert_eq!(config(typed).user, expected, "{typed}");
        }
        assert_errors(
            "--user",
            "\
    nobody => nobody: is not in /etc/passwd; give UID:GID, such as 65534:65534
    DNS => is not in /etc/passwd; did you mean dns?
    DNS:mail => did you mean dns:mail?
    dns.mail => dns.mail: is in another form than USER[:GROUP]; write dns:mail
    65534.65534 => write 65534:65534
    'dns mail' => write dns:mail
    nobody.nogroup => is not in /etc/passwd; give UID:GID
    dns:dns => dns:dns: dns is a user and no group; write dns:101 for the group of that user
    7:x => 7:x: the group is not in /etc/group; write 7:GID, or 7 for its own group
    :7 => has no user before the colon; write USER:GROUP
    4294967295 => 4294967295: is out of range: 0 to 4294967294
    7:99999999999 => is out of range: 0 to 4294967294
    0:7 => 0:7: is root with another group; write root, or another user
    root:7 => is root with another group
    -1 => is not in /etc/passwd
    dns --user dns => --user dns: is given twice; give this flag once
    ",
        );
    }
}
