//! What Podman's API says otherwise than Docker's.

use std::time::Duration;

use bollard::errors::Error;
use tokio::time::{Instant, sleep};

/// How long a state in between may last.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks again while the answer has a container's state that Docker does not know: a container that
/// has ended is `stopped` for a moment before it is `exited`.
pub(crate) async fn settled<T>(mut ask: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(e) if Instant::now() < deadline && in_between(&e) => {
                sleep(Duration::from_millis(50)).await;
            }
            answer => return answer,
        }
    }
}

fn in_between(error: &Error) -> bool {
    let states = ["stopped", "initialized", "configured", "unknown"];
    let text = error.to_string();
    let names = |state: &&str| text.contains(&format!("unknown variant `{state}`"));
    states.iter().any(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<bollard::models::ContainerSummaryStateEnum, Error> {
        Ok(serde_json::from_str(text)?)
    }

    #[tokio::test]
    async fn states_in_between_pass() {
        let mut answers = ["\"stopped\"", "\"exited\""].into_iter();
        let state = settled(async || answer(answers.next().unwrap())).await;
        assert_eq!(state.unwrap().to_string(), "exited");
        let mut asked = 0;
        let wrong = settled(async || {
            asked += 1;
            answer("\"nonsense\"")
        });
        assert!(wrong.await.is_err());
        assert_eq!(asked, 1);
    }
}
