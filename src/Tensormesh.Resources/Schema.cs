namespace Tensormesh.Resources;

// What a CRD states beyond the types themselves. Descriptions, defaults, ranges, patterns and lengths use the attributes of
// System.ComponentModel; these are the few things that .NET has no attribute for. `make crds` writes crds/*.yaml from all of them.

/// <summary>How the API server names and serves a kind.</summary>
/// <param name="singular">Lower-case name of one, as kubectl prints it.</param>
/// <param name="shortName">What people type, such as <c>gpud</c>.</param>
[AttributeUsage(AttributeTargets.Class)]
public sealed class CustomResourceAttribute(string singular, string shortName) : Attribute
{
    public string Singular { get; } = singular;
    public string ShortName { get; } = shortName;
    public bool Namespaced { get; init; }

    /// <summary>Whether <c>kubectl scale</c> and autoscalers may set <c>spec.replicas</c>.</summary>
    public bool Scales { get; init; }
}

/// <summary>A column of <c>kubectl get</c>, in the order written.</summary>
/// <param name="name">The heading.</param>
/// <param name="jsonPath">Where the value stands.</param>
[AttributeUsage(AttributeTargets.Class, AllowMultiple = true)]
public sealed class ColumnAttribute(string name, string jsonPath) : Attribute
{
    public string Name { get; } = name;
    public string JsonPath { get; } = jsonPath;

    /// <summary>string, integer or date.</summary>
    public string Type { get; init; } = "string";

    /// <summary>Columns above 0 show with <c>-o wide</c> only.</summary>
    public int Priority { get; init; }
}

/// <summary>A CEL rule on the object or field, for API servers since 1.25; <see cref="Validation"/> states the same.</summary>
[AttributeUsage(AttributeTargets.Class | AttributeTargets.Property, AllowMultiple = true)]
public sealed class RuleAttribute(string expression, string message) : Attribute
{
    public string Expression { get; } = expression;
    public string Message { get; } = message;
}

/// <summary>A list whose entries are told apart by one field, which the API server keeps unique and server-side apply merges by.</summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class ListKeyAttribute(string key) : Attribute
{
    public string Key { get; } = key;
}
