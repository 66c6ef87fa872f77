//! A server that says who asks, and who it is.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use wharfie_lab::Machine;

/// The part of a compose file with that server, as `*serve`; its shell ends with what is said.
macro_rules! serves {
    ($ends:literal) => {
        concat!(
            "
x-serve: &serve
  image: busybox
  init: true
  stop_grace_period: 0s
  command:
    - sh
    - -c
    - |
      mkdir -p /w/cgi-bin
      cat >/w/cgi-bin/who <<'END'
      #!/bin/sh
      printf 'Content-Type: text/plain\\r\\n\\r\\n%s %s\\n' $$REMOTE_ADDR $$(hostname)
      END
      chmod +x /w/cgi-bin/who
      ",
            $ends,
            "\n"
        )
    };
}
pub(crate) use serves;

/// Who a server says it is, and who it says asks.
pub(crate) fn who(from: &Machine, at: impl Into<IpAddr>, port: u16) -> Result<(String, String)> {
    let at = at.into();
    let (status, said) = from.http_get(&format!("http://{at}:{port}/cgi-bin/who"))?;
    ensure!(status == 200, "{status}: {said}");
    let mut words = said.split_whitespace().map(str::to_owned);
    let asker = words.next().context("nobody asks")?;
    let asker = asker.trim_start_matches("[::ffff:").trim_end_matches(']');
    Ok((words.next().context("nobody answers")?, asker.to_owned()))
}
