//! Columns: text with tabs becomes text with aligned cells, as Go's `text/tabwriter` aligns it: a column is as wide as its
//! widest cell among neighbouring lines that have the column. The last cell of a line belongs to none.

/// Widths of the columns a writer is inside of, and its constants.
struct Writer<'a> {
    lines: Vec<Vec<&'a str>>,
    padding: usize,
    widths: Vec<usize>,
    out: String,
}

/// Aligns `text` with `padding` spaces between columns.
pub fn align(text: &str, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let count = lines.len();
    let mut writer = Writer { lines, padding, widths: Vec::new(), out: String::new() };
    writer.format(0, count);
    writer.out
}

impl Writer<'_> {
    /// Finds the next column's blocks in these lines, and in each block the columns after it.
    fn format(&mut self, mut from: usize, to: usize) {
        let column = self.widths.len();
        let has_column = |line: &Vec<&str>| column + 1 < line.len();
        let mut this = from;
        while this < to {
            if !has_column(&self.lines[this]) {
                this += 1;
                continue;
            }
            self.write(from, this);
            from = this;
            let mut width = 0;
            while this < to && has_column(&self.lines[this]) {
                width = width.max(self.lines[this][column].chars().count() + self.padding);
                this += 1;
            }
            self.widths.push(width);
            self.format(from, this);
            self.widths.pop();
            from = this;
        }
        self.write(from, to);
    }

    fn write(&mut self, from: usize, to: usize) {
        for line in &self.lines[from..to] {
            for (i, cell) in line.iter().enumerate() {
                self.out.push_str(cell);
                if let Some(width) = self.widths.get(i).filter(|_| i + 1 < line.len()) {
                    self.out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
                }
            }
            self.out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_block() {
        for (text, expected) in [
            ("", ""),
            ("a\tb\nccc\td\n", "a    b\nccc  d\n"),
            ("Name:\tweb\nLabels:\ta=b\n\tc=d\n", "Name:    web\nLabels:  a=b\n         c=d\n"),
            // A line without the column ends its block.
            ("a\tb\nlong line without columns\nccc\td\n", "a  b\nlong line without columns\nccc  d\n"),
            ("a\tb\tc\nd\te\n", "a  b  c\nd  e\n"),
        ] {
            assert_eq!(align(text, 2), expected);
        }
    }
}
