//! Flags of other programs, and what does the same here.

use super::networks::access_list;
use super::{shown, taken};
use crate::config::address::address;

/// What does here what a flag does elsewhere.
pub(super) fn foreign(name: &str, value: Option<&str>) -> Option<String> {
    // Files of others have quotes, and lists in brackets.
    let bare = value.map(|value| {
        let list = value.strip_prefix('[').filter(|list| list.starts_with(['\'', '"']));
        let list = list.and_then(|list| list.strip_suffix(']')).unwrap_or(value);
        if list != value || list.starts_with(['\'', '"']) {
            list.replace(['\'', '"'], "")
        } else {
            list.into()
        }
    });
    let value = bare.as_deref();
    let is_off = value.is_some_and(|value| ["off", "no", "false", "0"].contains(&value));
    // Lists of others are of names at times, and of clients at others.
    let is_of_clients = || value.is_some_and(|value| access_list("--deny", value).is_some());
    let lower = name.to_ascii_lowercase().replace('_', "-");
    let name = match &*lower {
        "--sni" if is_off => "--no-sni",
        "--interface" if value.is_some_and(|value| address(value, 0).is_ok()) => "--bind",
        "--block" | "--blacklist" | "--blocklist" | "--denylist" if is_of_clients() => {
            "--blackhole"
        }
        long if long.starts_with("--") => long,
        _ => name,
    };
    let mut rows = FOREIGN.lines().filter_map(|row| row.split_once(" => "));
    let (_, remedy) = rows.find(|(names, _)| names.split(' ').any(|known| known == name))?;
    if let Some(before) = remedy.strip_suffix(" VALUE")
        && let Some((before, flag)) = before.rsplit_once(' ')
        && let Some(value) = value
    {
        let list = OF_CLIENTS.contains(&flag).then(|| access_list(flag, value)).flatten();
        return Some(match list.map_or_else(|| taken(flag, value), Ok) {
            Ok(right) => format!("{before} {right}"),
            Err(problem) => format!("it is {flag} here; {}: {problem}", shown(value)),
        });
    }
    Some(remedy.replace("VALUE", &value.map_or("VALUE".into(), shown)))
}

/// Flags of which each value is a network of clients.
const OF_CLIENTS: [&str; 3] = ["--allow", "--deny", "--rate-exempt"];

/// Flags of other programs, and what to write in their place, a row each. VALUE stands for the value that was
/// typed.
const FOREIGN: &str = "\
-p --port => the port stands behind the address: write --listen 127.0.0.1:VALUE, or another address
--add-local --addlocal --address --bind --dnsstublistenerextra --listen-address --listen-addresses --set-local \
--setlocal => write --listen VALUE
--outgoing-interface --query-source --source --source-address => write --upstream-source VALUE
--ip-freebind --ip-nonlocal-bind --ip-transparent --nonlocal-bind => write --freebind on
-i --bind-dynamic --bind-interfaces --except-interface --interface => write --listen ADDR with each address that is to \
be served, which `ip address` shows
-s --dns --fallbackdns --forward --forward-addr --forwarder --nameserver --resolver --server \
--server-names => write --upstream VALUE
--dnsovertls --forward-ssl-upstream --forward-tls-upstream --tls-upstream => all \
upstreams are asked over TLS: leave it out
--no-resolv --no-poll => no other program's files are read: leave it out
--reload => a running one reads its files again on SIGHUP: leave it out
-b --bootstrap => upstreams are not looked up by name: leave it out
--ca --ca-bundle --ca-cert --ca-certificate --cacert --tls-ca --tls-cert-bundle => write --ca-file VALUE
--ca-dir --ca-path --capath --system-ca --system-roots --tls-system-cert => the built-in roots are used unless told \
otherwise: leave it out, or write --ca-file FILE with those of this system
--insecure --no-tls-verify --no-verify --skip-verify --tls-insecure -k => verification cannot be turned off: write \
--ca-file FILE for your own CA, or the server's pin in place of its name, --upstream IP#sha256/BASE64
--pin --pins --pinset --tls-pin --tls-pinset --tls-pubkey-pinset => a pin stands behind the address: write --upstream \
IP#NAME,sha256/BASE64, or IP#sha256/BASE64 without a name
--auth-name --hostname --server-name --sni --tls-auth-name --tls-host --tls-name => the name stands behind the address: \
write --upstream IP#VALUE
--no-sni --disable-sni --sni-off => write --upstream IP#NAME,sni=off
--cert --certificate --tls-cert --client-certificate => it is shown to upstreams: write --client-cert VALUE
--key --private-key --tls-key => it is that of --client-cert: write --client-key VALUE
-j -t --jobs --threads --workers => one process uses one core: start one for each, all with --reuse-port on
-a --access-control --acl --add-acl --addacl --allow-from --allow-networks --allow-query --allow-query-cache \
--allow-recursion --allowed-clients --allowlist --match-clients --set-acl --setacl --whitelist => write --allow VALUE
--local-service --localnets --localnets-only => write --allow local
--blackhole --deny-from --disallowed-clients => write --deny VALUE
--block --blacklist --blocked-hosts --blocked-services --blocklist --denylist => for clients, write --deny CIDR; names \
are not blocked here, some upstreams do that: write --upstream adguard
--ip-ratelimit --limit --max-qps --max-qps-ip-rule --maxqpsiprule --qps --rate --ratelimit --rate-limit-qps \
--responses-per-second --rrl --rrl-ratelimit => it is for each network of clients: write --rate-limit VALUE
--burst --hashlimit-burst --limit-burst --rate-burst --ratelimit-burst => BURST stands behind a slash: write --rate-limit \
QPS/VALUE
--ip-ratelimit-backoff --ip-ratelimit-factor --ratelimit-backoff --ratelimit-factor --rrl-slip --slip => above \
--rate-limit every second query over UDP gets TC: leave it out
--exempt-clients --rate-limit-whitelist --ratelimit-allowlist --ratelimit-whitelist --rrl-whitelist => write \
--rate-exempt VALUE
--hashlimit-srcmask --ipv4-prefix-length --ratelimit-subnet-len-ipv4 --rrl-ipv4-prefix-length => write --rate-prefix \
VALUE/56
--ipv6-prefix-length --ratelimit-subnet-len-ipv6 --rrl-ipv6-prefix-length => write --rate-prefix 32/VALUE
--wait-limit-cookie --wait-limit-netblock => it is the same for each network of clients: write --wait-limit N
--refuse --refused => write --refuse-denied refused
--any --deny-any --minimal-any --refuse-any => queries of type ANY are forwarded as all others: leave it out
--allow-axfr --allow-transfer => zone transfers get REFUSED: leave it out
--incoming-num-tcp --max-tcp-clients --tcp-clients => write --tcp-clients-max VALUE
--max-tcp-clients-per-ip --tcp-connection-limit => write --tcp-clients-per-address-max N, for each address
--run-as --setuid --uid --username => write --user VALUE
-g --gid --group --groupname --setgid => the group stands behind the user: write --user USER:VALUE
--drop-privileges --drop-root --unprivileged => root is given up anyway, for 65534:65534: leave it out, or write --user \
USER
--cap-drop --capabilities --chroot --chroot-dir --chrootdir --jail --landlock --no-new-privileges --no-new-privs \
--rootdir --seccomp => files, system calls and capabilities are given up anyway: leave it out, or write --sandbox require
--dnssec --validate => what DNSSEC needs passes as it is: leave it out, the upstream or the client validates
-v => write --log-level debug to see more, or -V for the version
--debug --verbose => write --log-level debug, and --query-log on for a line per query
-q --quiet --silent => write --log-level error --query-log off
-c -C --conf --conf-file --config-file => write --config VALUE
--cache --cache-size --no-cache => there is no cache: leave it out, every query is forwarded
--deny-answer-addresses --private-address --private-subnets --rebind => write --private-answers strip, and \
--private-zone NAME for your own names
--rebind-protection --stop-dns-rebind => write --private-answers strip-loopback, and --private-zone NAME for your own \
names
--except-from --private-domain --rebind-domain-ok => write --private-zone VALUE
--rebind-localhost-ok => write --private-answers strip
--bogus-priv => reverse names of private addresses are answered here: leave it out, or write --special-names local
--log --log-file --logfile => lines go to stderr: write 2>>VALUE at the end; --log-level and --query-log say which \
lines
--run --serve --start => it serves without that word: leave it out
--health-check --health --healthcheck --ping --status => to ask whether it answers, write dot-proxy health, with nothing \
in between
--deep => it belongs to health, the first word behind dot-proxy
--json => it belongs to check, the first word behind dot-proxy
--check --check-upstream --probe --test => to try the upstreams, write dot-proxy check and the flags behind it
-D -d -f -n --background --daemon --daemonize --foreground --nodaemon --supervised => it stays in the foreground: leave \
it out, and have a service manager start it
-P --pid-file --pidfile => there is none: leave it out, a service manager knows its process";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags;
    use crate::config::tests::assert_errors;

    #[test]
    fn flags_of_other_programs_are_shown_as_what_does_the_same_here() {
        let table = "
        -p 53                             => -p: unknown flag; the port stands behind the address: write --listen 127.0.0.1:53
        --port=5353                       => write --listen 127.0.0.1:5353
        -p53                              => write --listen 127.0.0.1:53
        --port                            => write --listen 127.0.0.1:VALUE
        -vvv                              => write --log-level debug to see more, or -V for the version
        --debug -u quad9                  => --debug: unknown flag; write --log-level debug, and --query-log on
        -c /etc/dot-proxy/dot-proxy.conf            => -c: unknown flag; write --config /etc/dot-proxy/dot-proxy.conf
        --log-file /var/log/dns           => --log-file: unknown flag; lines go to stderr: write 2>>/var/log/dns at the end
        --insecure                        => verification cannot be turned off: write --ca-file FILE for your own CA, or the server's pin
        --tls-ca /etc/ca.pem              => --tls-ca: unknown flag; write --ca-file /etc/ca.pem
        --cacert                          => write --ca-file
        --bind=127.0.0.1                  => write --listen 127.0.0.1
        --outgoing-interface 192.0.2.7    => write --upstream-source 192.0.2.7
        --ip-transparent                  => --ip-transparent: unknown flag; write --freebind on
        -uquad9                           => -uquad9: unknown flag; write -u quad9
        -l127.0.0.1:53                    => write -l 127.0.0.1:53
        -upstream quad9                   => -upstream: unknown flag; write --upstream
        -hx                               => -hx: unknown flag; --help lists the flags
        --timeout 5                       => unknown flag; --help lists the flags
        --client-timeout 5                => unknown flag; --help lists the flags
        --listne ::1                      => unknown flag; did you mean --listen?
        --tcp-client-max 5                => unknown flag; did you mean --tcp-clients-max?
        \u{2014}listen 127.0.0.1         => flags begin with two hyphens: write --listen
        '--query-log on'                  => write --query-log and on as two words, not in one pair of quotes
        --no-query-log                    => --no-query-log: unknown flag; write --query-log off
        --no-listen                       => --no-listen: unknown flag; --help lists the flags
        --policy spread                   => --policy: unknown flag; did you mean --upstream-policy?
        --limits                          => --limits: unknown flag; did you mean --print-limits?
        --idle-timeout 5                  => --idle-timeout: unknown flag; --help lists the flags
        --threads 4                       => start one for each, all with --reuse-port on
        -timeout 5                        => -timeout: unknown flag; --help lists the flags
        --no-sni                          => --no-sni: unknown flag; write --upstream IP#NAME,sni=off
        --sni dns.example                 => write --upstream IP#dns.example
        -s 9.9.9.9                        => -s: unknown flag; write --upstream 9.9.9.9
        -b 9.9.9.9                        => -b: unknown flag; upstreams are not looked up by name: leave it out
        -d -u quad9                       => -d: unknown flag; it stays in the foreground: leave it out
        --foreground                      => --foreground: unknown flag; it stays in the foreground: leave it out
        --pidfile /run/dns.pid            => --pidfile: unknown flag; there is none: leave it out
        -u dns                            => -u dns: is a user of this host, and this flag is for upstreams; write --user dns
        -u dns:nogroup                    => is a user of this host, and this flag is for upstreams; write --user dns:nogroup
        -l debug                          => -l debug: is a level of the log, and this flag is for listeners; write --log-level debug
        -l 1                              => is a port without an address
        --sni off                         => --sni: unknown flag; write --upstream IP#NAME,sni=off
        --sni=no                          => write --upstream IP#NAME,sni=off
        --allow-query 10.0.0.0/8          => --allow-query: unknown flag; write --allow 10.0.0.0/8
        --acl=10.0.0.0/8                  => --acl: unknown flag; write --allow 10.0.0.0/8
        --ratelimit 20                    => it is for each network of clients: write --rate-limit 20
        --ratelimit-whitelist 10.0.0.1    => write --rate-exempt 10.0.0.1
        --ratelimit-subnet-len-ipv4 24    => write --rate-prefix 24/56
        --uid 65534                       => --uid: unknown flag; write --user 65534
        --group dns                       => the group stands behind the user: write --user USER:dns
        --chroot /var/empty               => leave it out, or write --sandbox require
        --no-sandbox                      => --no-sandbox: unknown flag; write --sandbox off
        --no-rate-limit                   => --no-rate-limit: unknown flag; write --rate-limit off
        --tls-cert a.pem                  => it is shown to upstreams: write --client-cert a.pem
        --key a.key                       => write --client-key a.key
        --dnssec                          => leave it out, the upstream or the client validates";
        assert_errors("", table);
    }

    #[test]
    fn what_has_no_flag_in_front_is_shown_behind_the_one_that_it_is_for() {
        let table = "
        tls://9.9.9.9                     => every value follows its flag, such as --upstream 9.9.9.9#dns.quad9.net
        1.1.1.1                           => every value follows its flag, such as --upstream 1.1.1.1
        o/rel.conf                        => a file of flags follows its own: write --config o/rel.conf
        rel.conf                          => write --config rel.conf
        reload                            => a running one reads its files again on SIGHUP
        --listen 127.0.0.1 127.0.0.2      => such as --listen 127.0.0.2
        --listen 127.0.0.1 quad9          => such as --upstream quad9
        --allow 10.0.0.0/8 192.168.0.0/16 => such as --allow 192.168.0.0/16
        server=1.1.1.1#53                 => write --upstream 1.1.1.1#cloudflare-dns.com
        server=/corp.example/10.0.0.1     => it is --upstream here; /corp.example/10.0.0.1: is dnsmasq's notation
        'DNS=1.1.1.1#a 9.9.9.9#b'         => write --upstream 1.1.1.1#a --upstream 9.9.9.9#b
        --interface 127.0.0.1@5353        => write --listen 127.0.0.1@5353
        --forward-addr 1.1.1.1@853#cloudflare-dns.com => write --upstream 1.1.1.1@853#cloudflare-dns.com
        53                                => every value follows its flag, such as --listen 127.0.0.1:53
        upstream=quad9                    => flags begin with two hyphens: write --upstream quad9";
        assert_errors("", table);
    }

    #[test]
    fn flags_about_clients_of_other_programs_are_shown_as_what_does_the_same_here() {
        let table = "
        access-control: 10.0.0.0/8        => access-control:: stray argument; write --allow 10.0.0.0/8
        access-control: 10.0.0.0/8 deny   => write --deny 10.0.0.0/8
        'access-control: 10.0.0.0/8 allow' => write --allow 10.0.0.0/8
        --access-control '10.0.0.0/8 deny' => --access-control: unknown flag; write --deny 10.0.0.0/8
        --access-control 10.0.0.0/8 deny  => write --deny 10.0.0.0/8
        --access-control '10.0.0.0/8 refuse' => write --deny 10.0.0.0/8 --refuse-denied refused
        --access-control 10.0.0.0/8 allow_snoop => write --allow 10.0.0.0/8
        --acl 'block net 10.0.0.0/8 192.168.0.0/16' => write --deny 10.0.0.0/8 --deny 192.168.0.0/16
        --allow-query '{ 10.0.0.0/8; !10.1.0.0/16; };' => write --allow 10.0.0.0/8 --deny 10.1.0.0/16
        --allow-query 'trusted'           => it is --allow here; trusted: 
        --addACL 10.0.0.0/8               => --addACL: unknown flag; write --allow 10.0.0.0/8
        --setACL '{\"10.0.0.0/8\", \"fd00::/8\"}' => write --allow 10.0.0.0/8 --allow fd00::/8
        --allowed_clients 10.0.0.7        => write --allow 10.0.0.7/32
        --local-service                   => --local-service: unknown flag; write --allow local
        --local-service=net               => write --allow local
        --block 10.0.0.0/8                => --block: unknown flag; write --deny 10.0.0.0/8
        --blacklist ads.txt               => names are not blocked here, some upstreams do that: write --upstream adguard
        --refuse-any                      => queries of type ANY are forwarded as all others: leave it out
        --limit-burst 50                  => BURST stands behind a slash: write --rate-limit QPS/50
        --hashlimit-srcmask 24            => write --rate-prefix 24/56
        --ip-ratelimit-factor 10          => above --rate-limit every second query over UDP gets TC: leave it out
        --MaxQPSIPRule 20                 => write --rate-limit 20
        --ratelimit_whitelist 10.0.0.1,10.0.0.2 => write --rate-exempt 10.0.0.1/32 --rate-exempt 10.0.0.2/32
        --allow-transfer none             => zone transfers get REFUSED: leave it out
        --tcp-clients 50                  => write --tcp-clients-max 50
        --wait-limit-netblock 5           => it is the same for each network of clients: write --wait-limit N
        --interface eth0                  => write --listen ADDR with each address that is to be served
        --drop-privileges                 => root is given up anyway, for 65534:65534: leave it out
        --no-new-privs                    => given up anyway: leave it out, or write --sandbox require";
        assert_errors("", table);
    }

    #[test]
    fn flags_that_are_suggested_are_flags() {
        let rows: Vec<_> = FOREIGN.lines().filter_map(|row| row.split_once(" => ")).collect();
        assert_eq!(rows.len(), FOREIGN.lines().count());
        for (names, remedy) in rows {
            for name in names.split(' ') {
                let is_lower = !name.starts_with("--") || *name == name.to_ascii_lowercase();
                assert!(name.starts_with('-') && is_lower && flags::find(name).is_none(), "{name}");
            }
            let names = remedy.split([' ', ',', ':', ';']).filter(|word| word.starts_with('-'));
            for name in names {
                assert!(flags::find(name).is_some(), "{name} in {remedy:?}");
            }
        }
    }
}
