using System.Buffers.Binary;
using System.Diagnostics;
using Tensormesh.Billing;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Telemetry;

/// <summary>
/// Spans of the operator, for whoever listens (OpenTelemetry); without a listener nothing is made. All that one change of a GpuDeployment leads to is one
/// trace: the review, the rounds until it runs or is refused, their SQL, and the first posting. Nothing carries a trace from the API server's request to
/// the watch, so its id is made of what both see: the object's uid and generation (decision 47).
/// </summary>
internal static class OperatorTrace
{
    public const string SourceName = "Tensormesh.Operator";

    private const string DeploymentTag = "tensormesh.deployment", AccountTag = "tensormesh.account", VerdictTag = "tensormesh.verdict", ChangeTag = "tensormesh.change";

    private static readonly ActivitySource Source = new(SourceName);

    /// <summary>The id of the trace that the next span on this thread begins.</summary>
    [ThreadStatic] private static ActivityTraceId? next;

    static OperatorTrace() => Activity.TraceIdGenerator = () => next ?? ActivityTraceId.CreateRandom();

    public static bool IsOn => Source.HasListeners();

    /// <summary>The trace of one change: the uid's digits, with the generation in the last of them. Null for an object that has no uid yet.</summary>
    public static ActivityTraceId? ChangeOf(string? uid, long? generation)
    {
        if (generation is not { } number || !Guid.TryParse(uid, out var id) || id == Guid.Empty) return null;
        Span<byte> bytes = stackalloc byte[16];
        id.TryWriteBytes(bytes, bigEndian: true, out _);
        var last = bytes[12..];
        BinaryPrimitives.WriteUInt32BigEndian(last, BinaryPrimitives.ReadUInt32BigEndian(last) ^ (uint)number);
        return ActivityTraceId.CreateFromBytes(bytes);
    }

    public static ActivityTraceId? ChangeOf(GpuDeployment? deployment) => ChangeOf(deployment?.Metadata.Uid, deployment?.Metadata.Generation);

    /// <summary>The review of a change. Where the API server traces itself, its request is linked.</summary>
    public static Activity? Review(string deployment, ActivityTraceId? change) => IsOn ? Tagged(Begin("admit", change, Activity.Current?.Context), deployment) : null;

    /// <summary>
    /// One round of the loop: part of the change's trace until its outcome is reported, and a trace of its own after that, which names the change. A deployment that runs for
    /// months must not become one trace of months.
    /// </summary>
    public static Activity? Round(string kind, string key, GpuDeployment? deployment)
    {
        if (!IsOn) return null;
        var change = ChangeOf(deployment);
        var span = Begin("reconcile", deployment is not null && IsUnderway(deployment) ? change : null, null);
        span?.SetTag("tensormesh.kind", kind);
        if (change is { } known) span?.SetTag(ChangeTag, known.ToHexString());
        return Tagged(span, key);
    }

    public static Activity? Settlement(AccountId account) => IsOn ? Begin("settle", null, null)?.SetTag(AccountTag, account.Value) : null;

    /// <summary>That what a change started was charged for the first time, by the settlement that is linked.</summary>
    public static void Posted(string deployment, ActivityTraceId change, AccountId account, ActivityContext settlement)
    {
        using var span = Begin("post usage", change, settlement);
        Tagged(span, deployment)?.SetTag(AccountTag, account.Value);
    }

    /// <summary>What the gate said, on the span that is open.</summary>
    public static void Note(AccountId? account, string verdict)
    {
        if (Activity.Current is not { } span || span.Source != Source) return;
        span.SetTag(AccountTag, account?.Value);
        span.SetTag(VerdictTag, verdict);
    }

    private static bool IsUnderway(GpuDeployment deployment) => deployment.Status is not { } status
        || status.ObservedGeneration != deployment.Metadata.Generation
        || status.Conditions?.Any(condition => condition is { Type: ConditionTypes.Reconciling, Status: "True" }) == true;

    private static Activity? Tagged(Activity? span, string deployment) => span?.SetTag(DeploymentTag, deployment);

    /// <summary>A span that begins a trace, of this id where one is given: an id that is given to the sampler makes it decide alike for all of a change.</summary>
    private static Activity? Begin(string name, ActivityTraceId? trace, ActivityContext? linked)
    {
        var around = Activity.Current;
        Activity.Current = null;
        next = trace;
        var span = Source.StartActivity(name, ActivityKind.Internal, default(ActivityContext), links: linked is { } context ? [new ActivityLink(context)] : null);
        next = null;
        if (span is null) Activity.Current = around;
        return span;
    }
}
