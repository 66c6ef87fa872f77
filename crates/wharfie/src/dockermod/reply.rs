//! The replies, as DockerMod gave them.

use serde_json::{Map, Value, json};

use super::engine::Answer;

/// What an Engine answered, and where: status and headers beside the body, which is in
/// `Response.Body`; where there is none, or it is no JSON, `Response` is a text.
pub(super) fn answered(answer: &Answer, instance: &str) -> Value {
    let mut reply = Map::new();
    reply.insert("statusCode".to_owned(), answer.status.into());
    for (name, value) in &answer.headers {
        reply.insert(name.clone(), value.as_str().into());
    }
    let response = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(body) => json!({ "Body": body }),
        Err(_) => String::from_utf8_lossy(&answer.body).into(),
    };
    reply.insert("Response".to_owned(), response);
    reply.insert("dockerInstance".to_owned(), instance.into());
    Value::Object(reply)
}

/// The replies of several nodes.
pub(super) fn containers(replies: Vec<Value>) -> Value {
    json!({ "containers": replies })
}

/// One of several nodes did not answer.
pub(super) fn timeout() -> Value {
    json!({"error": "timeout"})
}

/// The only node that was asked did not answer, or there is no such container.
pub(super) fn no_such_id() -> Value {
    json!({"status": "timeout or no such id"})
}

/// Nobody knows the action.
pub(super) fn no_such_action() -> Value {
    json!({"error": "no such action is supported"})
}

/// What was asked for cannot be.
pub(super) fn error(message: impl Into<String>) -> Value {
    json!({"status": "error", "message": message.into()})
}

/// Done, and nothing to tell.
pub(super) fn ok() -> Value {
    json!({"status": "ok"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn reply(status: u16, body: &'static str) -> Value {
        let header = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let answer = Answer {
            status,
            headers: vec![header("Date", "now"), header("Content-Length", "2")],
            body: Bytes::from_static(body.as_bytes()),
        };
        answered(&answer, "h1")
    }

    #[test]
    fn an_answer_stands_beside_its_headers() {
        let expected = json!({
            "statusCode": 201,
            "Date": "now",
            "Content-Length": "2",
            "Response": {"Body": {"Id": "a"}},
            "dockerInstance": "h1",
        });
        assert_eq!(reply(201, r#"{"Id": "a"}"#), expected);
        assert_eq!(reply(204, "")["Response"], "");
        assert_eq!(reply(500, "broken\n")["Response"], "broken\n");
        assert_eq!(reply(200, "null")["Response"], json!({"Body": null}));
    }
}
