//! What the program reads from its environment to know where it runs.

/// The variables by which pipelines say that they are one.
const PIPELINES: [&str; 4] = ["TF_BUILD", "JENKINS_URL", "CODEBUILD_BUILD_ID", "TEAMCITY_VERSION"];

/// The variable by which this environment says that it is a pipeline.
///
/// Most set `CI`, and some people switch that off. Azure Pipelines, Jenkins, AWS CodeBuild and TeamCity have variables
/// of their own.
pub fn pipeline() -> Option<&'static str> {
    pipeline_of(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

fn pipeline_of(value: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let off = |value: &str| matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "false");
    if value("CI").is_some_and(|value| !off(&value)) {
        return Some("CI");
    }
    PIPELINES.into_iter().find(|name| value(name).is_some_and(|value| !value.trim().is_empty()))
}

/// A variable that the manifest names, for a secret.
pub fn lookup(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pipeline_is_recognised_and_ci_can_be_switched_off() {
        let of = |name: &'static str, value: &'static str| {
            pipeline_of(move |asked| (asked == name).then(|| value.to_owned()))
        };
        for (name, value) in [
            ("CI", "true"),
            ("CI", "1"),
            ("CI", "woodpecker"),
            ("TF_BUILD", "True"),
            ("JENKINS_URL", "https://jenkins.example.com/"),
            ("CODEBUILD_BUILD_ID", "x:1"),
            ("TEAMCITY_VERSION", "2026.1"),
        ] {
            assert_eq!(of(name, value), Some(name), "{name}={value}");
        }
        for (name, value) in
            [("CI", ""), ("CI", "false"), ("CI", "False"), ("CI", "0"), ("TF_BUILD", ""), ("OTHER", "1")]
        {
            assert_eq!(of(name, value), None, "{name}={value}");
        }
    }
}
