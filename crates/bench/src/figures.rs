//! Figures of several repetitions: median, range, and ratio to others.

/// The figures of one measurement, one for each repetition, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        match count {
            0 => None,
            _ if count % 2 == 1 => Some(sorted[count / 2]),
            _ => Some(f64::midpoint(sorted[count / 2 - 1], sorted[count / 2])),
        }
    }

    /// The median of the ratios to the other's figures of the same repetition, which ran under the same load.
    pub(crate) fn to(&self, others: &Self) -> Option<f64> {
        if self.0.len() != others.0.len() {
            return None;
        }
        let pairs = self.0.iter().zip(&others.0).filter(|(_, other)| **other > 0.0);
        pairs
            .map(|(figure, other)| figure / other)
            .collect::<Self>()
            .median()
    }

    /// Applies a function to each figure.
    pub(crate) fn each(&self, change: impl Fn(f64) -> f64) -> Self {
        self.0.iter().map(|figure| change(*figure)).collect()
    }

    pub(crate) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    /// The least and the greatest figure.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let least = self.0.iter().copied().reduce(f64::min)?;
        Some((least, self.0.iter().copied().reduce(f64::max)?))
    }
}

impl FromIterator<f64> for Figures {
    fn from_iter<T: IntoIterator<Item = f64>>(figures: T) -> Self {
        let mut all = Self::default();
        figures.into_iter().for_each(|figure| all.push(figure));
        all
    }
}

/// Three significant digits, without an exponent.
pub(crate) fn shown(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{figure:.decimals$}");
    let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
    let (whole, rest) = digits
        .split_once('.')
        .map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match rest {
        Some(rest) => format!("{sign}{grouped}.{rest}"),
        None => format!("{sign}{grouped}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let median = |figures: &[f64]| figures.iter().copied().collect::<Figures>().median();
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), Some(3.0));
        let figures: Figures = [5.0, 1.0, 3.0].into_iter().collect();
        assert_eq!(figures.range(), Some((1.0, 5.0)));
    }

    #[test]
    fn figures_of_one_repetition_are_compared() {
        let of = |figures: &[f64]| figures.iter().copied().collect::<Figures>();
        // The machine is slower in each repetition.
        assert_eq!(of(&[1.0, 10.0, 100.0]).to(&of(&[2.0, 20.0, 400.0])), Some(0.5));
        assert_eq!(of(&[]).to(&of(&[])), None);
        assert_eq!(of(&[1.0]).to(&of(&[1.0, 2.0])), None);
        assert_eq!(of(&[1.0]).to(&of(&[0.0])), None);
    }

    #[test]
    fn figures_are_shown_with_three_digits() {
        for (figure, text) in [
            (0.0, "0.000"),
            (0.0123, "0.012"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-4567.0, "-4,567"),
        ] {
            assert_eq!(shown(figure), text);
        }
    }
}
