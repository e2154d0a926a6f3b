//! Metrics in the older text format of Prometheus, for what does not ask for OpenMetrics.

use std::fmt::Write;

/// Metrics in the Prometheus text format, version 0.0.4, made of those in the OpenMetrics format.
/// There the head of a family has the name of its samples, and no unit, and the text no last line.
pub(crate) fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        let head = [words.next(), words.next(), words.next()];
        let rest = words.next().unwrap_or_default();
        // Writing to a string does not fail.
        let _ = match head {
            [Some("#"), Some("HELP"), Some(_)] => {
                help = Some(rest);
                Ok(())
            }
            [Some("#"), Some("TYPE"), Some(family)] => {
                let (suffix, kind) = match rest {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "stateset" => ("", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                // Quotes are escaped in OpenMetrics alone.
                let help = help.take().unwrap_or_default().replace("\\\"", "\"");
                writeln!(text, "# HELP {family}{suffix} {help}")
                    .and_then(|()| writeln!(text, "# TYPE {family}{suffix} {kind}"))
            }
            [Some("#"), ..] => Ok(()),
            _ => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_of_their_samples_and_the_end_is_the_last_sample() {
        let open = "# HELP o_cpu_seconds CPU \\\"time\\\".\n# TYPE o_cpu_seconds counter\n\
            # UNIT o_cpu_seconds seconds\no_cpu_seconds_total{s=\"a # b\"} 1.5\n\
            # HELP o_build Build.\n# TYPE o_build info\no_build_info{version=\"1\"} 1\n\
            # HELP o_wait Wait.\n# TYPE o_wait histogram\no_wait_bucket{le=\"+Inf\"} 2\n\
            o_wait_sum 1\no_wait_count 2\n# EOF\n";
        let plain = "# HELP o_cpu_seconds_total CPU \"time\".\n# TYPE o_cpu_seconds_total counter\n\
            o_cpu_seconds_total{s=\"a # b\"} 1.5\n\
            # HELP o_build_info Build.\n# TYPE o_build_info gauge\no_build_info{version=\"1\"} 1\n\
            # HELP o_wait Wait.\n# TYPE o_wait histogram\no_wait_bucket{le=\"+Inf\"} 2\n\
            o_wait_sum 1\no_wait_count 2\n";
        assert_eq!(prometheus_text(open), plain);
    }
}
