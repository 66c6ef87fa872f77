//! Scalar types of the model and how each is written in the normalised output.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A size in bytes. Written as a decimal string, as the reference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub i64);

impl Bytes {
    /// Whether the size is unset (zero means unset throughout the specification).
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(d)? {
            serde_json::Value::Number(n) => n
                .as_i64()
                .map(Bytes)
                .ok_or_else(|| D::Error::custom("a size must be a whole number of bytes")),
            serde_json::Value::String(s) => crate::units::parse_bytes(&s)
                .map(Bytes)
                .map_err(D::Error::custom),
            _ => Err(D::Error::custom("a size must be a number or a string")),
        }
    }
}

/// A span of time in nanoseconds. Written as Go's `time.Duration` prints it (`1m30s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(pub i64);

impl Duration {
    /// Whether the span is zero, which the output leaves out.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The same span for the standard library; negative spans become zero.
    #[must_use]
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::units::format_duration(self.0))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        crate::units::parse_duration(&text)
            .map(Duration)
            .map_err(D::Error::custom)
    }
}

/// A single-precision number (`cpus`, ratios), written without a needless fraction.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Number(pub f32);

impl Number {
    /// Whether the number is unset.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 9e15 {
            #[allow(clippy::cast_possible_truncation)] // whole and in range: checked above
            return s.serialize_i64(self.0 as i64);
        }
        // The shortest decimal that reads back as this f32, not its binary expansion.
        let shortest: f64 = self.0.to_string().parse().unwrap_or(f64::from(self.0));
        s.serialize_f64(shortest)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(d)? {
            serde_json::Value::Number(n) => {
                n.to_string().parse().map(Number).map_err(D::Error::custom)
            }
            serde_json::Value::String(s) => s.trim().parse().map(Number).map_err(D::Error::custom),
            _ => Err(D::Error::custom("expected a number")),
        }
    }
}

/// Permission bits, read from an octal string or a number, written as `"0440"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub i64);

impl Serialize for FileMode {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("0{:o}", self.0))
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(d)? {
            serde_json::Value::Number(n) => n
                .as_i64()
                .map(FileMode)
                .ok_or_else(|| D::Error::custom("a file mode must be a whole number")),
            serde_json::Value::String(s) => i64::from_str_radix(&s, 8)
                .map(FileMode)
                .map_err(|_| D::Error::custom(format!("{s:?} is not an octal file mode"))),
            _ => Err(D::Error::custom("a file mode must be a number or a string")),
        }
    }
}

/// How many devices are asked for: a number, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceCount(pub i64);

impl DeviceCount {
    /// Every device there is.
    pub const ALL: Self = Self(-1);

    /// Whether the count is unset.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for DeviceCount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for DeviceCount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(d)? {
            serde_json::Value::Number(n) => n
                .as_i64()
                .map(DeviceCount)
                .ok_or_else(|| D::Error::custom("a device count must be a whole number")),
            serde_json::Value::String(s) if s.eq_ignore_ascii_case("all") => Ok(Self::ALL),
            serde_json::Value::String(s) => s.parse().map(DeviceCount).map_err(|_| {
                D::Error::custom(format!(
                    "invalid device count {s:?}: use a number or \"all\""
                ))
            }),
            _ => Err(D::Error::custom(
                "a device count must be a number or \"all\"",
            )),
        }
    }
}
