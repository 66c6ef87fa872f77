//! Plain columns.

/// Rows under headers, in aligned columns.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Width that each column has at least, gap included.
    min_width: usize,
    /// Blanks between columns.
    gap: usize,
}

impl Table {
    /// A table whose columns are at least `min_width` wide.
    pub(crate) fn new<const N: usize>(min_width: usize, headers: [&str; N]) -> Self {
        Self::with(min_width, headers.map(str::to_owned).to_vec())
    }

    /// The same with any number of columns.
    pub(crate) fn with(min_width: usize, headers: Vec<String>) -> Self {
        Self {
            rows: vec![headers],
            min_width,
            gap: 3,
        }
    }

    /// A table with any number of columns, only as wide as they must be.
    pub(crate) fn narrow(headers: Vec<String>) -> Self {
        Self {
            rows: vec![headers],
            min_width: 0,
            gap: 2,
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Adds a row of any length.
    pub(crate) fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text, a line a row.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|i| {
                let widest = self
                    .rows
                    .iter()
                    .filter_map(|r| r.get(i))
                    .map(|c| width(c))
                    .max();
                (widest.unwrap_or(0) + self.gap).max(self.min_width)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (i, (cell, &wide)) in row.iter().zip(&widths).enumerate() {
                line.push_str(cell);
                if i + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', wide - width(cell)));
                }
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(10, ["NAME", "IMAGE", "PORTS"]);
        table.row(["x-web-1".into(), "busybox".into(), String::new()]);
        table.row(["x-longer-name-1".into(), "a".into(), "80/tcp".into()]);
        assert_eq!(
            table.render(),
            "NAME              IMAGE     PORTS\n\
             x-web-1           busybox   \n\
             x-longer-name-1   a         80/tcp\n"
        );
    }
}
