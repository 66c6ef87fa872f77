//! What a build may ask of us while it runs: directories, secrets, an SSH agent, and credentials
//! for registries. Nothing of it is sent before it is asked for.

use std::collections::HashMap;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::filesync::{self, Source};
use super::grpc::{Call, Fault, Messages, Replies, Service, code};
use super::wire::{Message, fields};
use crate::registry;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// What BuildKit is told that it may call.
pub(super) const METHODS: [&str; 6] = [
    HEALTH,
    DIFF_COPY,
    CREDENTIALS,
    SECRET,
    CHECK_AGENT,
    FORWARD_AGENT,
];

/// What a build may ask for.
#[derive(Default)]
pub(super) struct Session {
    /// Directories by name.
    pub(super) sources: HashMap<String, Source>,
    /// Secrets by id.
    pub(super) secrets: HashMap<String, Vec<u8>>,
    /// Sockets of SSH agents by id.
    pub(super) agents: HashMap<String, PathBuf>,
}

impl Service for Session {
    async fn answer(&self, mut call: Call, replies: &mut Replies) -> Result<(), Fault> {
        match call.method.as_str() {
            // It serves.
            HEALTH => replies.send(&Message::default().number(1, 1).done()).await,
            DIFF_COPY => {
                filesync::diff_copy(&self.sources, &call.headers, call.messages, replies).await
            }
            CREDENTIALS => {
                let host = question(&mut call.messages).await?;
                let found = registry::credentials(&host).await;
                let found = found.map_err(|e| Fault::new(code::UNKNOWN, e.to_string()))?;
                let (user, secret) = found.map_or_else(Default::default, registry::Login::basic);
                let answer = Message::default().text(1, &user).text(2, &secret);
                replies.send(&answer.done()).await
            }
            SECRET => {
                let id = question(&mut call.messages).await?;
                match self.secrets.get(&id) {
                    Some(secret) => {
                        replies
                            .send(&Message::default().bytes(1, secret).done())
                            .await
                    }
                    None => Err(Fault::new(
                        code::NOT_FOUND,
                        format!("secret {id}: not found: name it in `build.secrets`"),
                    )),
                }
            }
            CHECK_AGENT => {
                let id = question(&mut call.messages).await?;
                self.agent(&id)?;
                replies.send(&[]).await
            }
            FORWARD_AGENT => {
                let id = call.headers.get("buildkit.ssh.id");
                let id = id.and_then(|v| v.to_str().ok()).unwrap_or_default();
                let agent = UnixStream::connect(self.agent(id)?).await?;
                forward(agent, call.messages, replies).await
            }
            other => Err(Fault::new(
                code::UNIMPLEMENTED,
                format!("no method {other}"),
            )),
        }
    }
}

impl Session {
    fn agent(&self, id: &str) -> Result<&PathBuf, Fault> {
        let id = if id.is_empty() { "default" } else { id };
        self.agents.get(id).ok_or_else(|| {
            Fault::new(
                code::NOT_FOUND,
                format!("no SSH agent {id}: name it in `build.ssh`, or with --ssh"),
            )
        })
    }
}

/// The first field of a question: in all of them it is the name of what is asked for.
async fn question(messages: &mut Messages) -> Result<String, Fault> {
    let message = messages.next().await?.unwrap_or_default();
    let mut all = fields(&message);
    Ok(all
        .find(|(field, _)| *field == 1)
        .map(|(_, value)| value.text())
        .unwrap_or_default())
}

/// Passes bytes between an agent and a step of the build.
async fn forward(
    agent: UnixStream,
    mut messages: Messages,
    replies: &mut Replies,
) -> Result<(), Fault> {
    let (mut from, mut to) = agent.into_split();
    let questions = async {
        while let Some(message) = messages.next().await? {
            for (field, value) in fields(&message) {
                if field == 1 {
                    to.write_all(value.bytes()).await?;
                }
            }
        }
        to.shutdown().await?;
        Ok::<_, Fault>(())
    };
    let answers = async {
        let mut piece = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut piece).await?;
            if count == 0 {
                return Ok(());
            }
            let message = Message::default().bytes(1, &piece[..count]);
            replies.send(&message.done()).await?;
        }
    };
    tokio::try_join!(questions, answers)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::grpc::{Client, serve};
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn only_what_belongs_to_the_build_is_told() {
        let path = std::env::temp_dir().join(format!("wharfie-agent-{}", std::process::id()));
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let agent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            said.reverse();
            stream.write_all(&said).await.unwrap();
        });
        let session = Session {
            secrets: [("s".to_owned(), b"content".to_vec())].into(),
            agents: [("default".to_owned(), path.clone())].into(),
            ..Session::default()
        };
        let (here, there) = UnixStream::pair().unwrap();
        let server = tokio::spawn(serve(Box::new(there), Arc::new(session)));
        let (client, connection) = Client::new(Box::new(here)).await.unwrap();
        let connection = tokio::spawn(connection);
        let text = |text: &str| Message::default().text(1, text).done();
        assert_eq!(client.ask(HEALTH, &[]).await.unwrap()[..], [8, 1]);
        let secret = client.ask(SECRET, &text("s")).await.unwrap();
        assert_eq!(fields(&secret).next().unwrap().1.bytes(), b"content");
        let fault = client.ask(SECRET, &text("other")).await.unwrap_err();
        assert_eq!(fault.code, code::NOT_FOUND);
        assert!(client.ask(CHECK_AGENT, &text("default")).await.is_ok());
        assert!(client.ask(CHECK_AGENT, &text("other")).await.is_err());
        let answer = client.ask(FORWARD_AGENT, &text("abcde")).await.unwrap();
        assert_eq!(fields(&answer).next().unwrap().1.bytes(), b"edcba");
        let fault = client.ask(DIFF_COPY, &[]).await.unwrap_err();
        assert_eq!(fault.code, code::NOT_FOUND);
        agent.await.unwrap();
        drop(client);
        connection.await.unwrap();
        server.await.unwrap().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
