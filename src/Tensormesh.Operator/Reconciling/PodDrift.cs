using System.Collections.Concurrent;
using k8s.Models;
using Tensormesh.Resources;

namespace Tensormesh.Operator.Reconciling;

/// <summary>The child as our own apply left it.</summary>
internal readonly record struct AppliedChild(string Hash, long Generation);

/// <summary>A rendered child that the server refused, and what it said.</summary>
/// <param name="Until">When the server may think otherwise, though nothing of the child has changed; null for never.</param>
internal sealed record RefusedChild(string Hash, string Message, DateTimeOffset? Until = null);

/// <summary>
/// Tells whether a child Deployment is still what was applied. The server raises an object's generation with every change of
/// its spec, whoever makes it: a child whose hash is ours and whose generation is the one our own apply produced has not
/// been touched. Comparing fields instead would trip over everything that the server fills in or rewrites.
/// </summary>
internal sealed class PodDrift
{
    private readonly ConcurrentDictionary<string, AppliedChild> applied = new(StringComparer.Ordinal);

    private readonly ConcurrentDictionary<string, RefusedChild> refused = new(StringComparer.Ordinal);

    public static string Hash(V1Deployment rendered) => rendered.Metadata.Annotations[WellKnown.RenderedHashAnnotation];

    public static bool Differs(V1Deployment? observed, V1Deployment rendered, AppliedChild? applied)
    {
        if (observed is null) return true;
        var hash = Hash(rendered);
        if (observed.Metadata.Annotations is null || !observed.Metadata.Annotations.TryGetValue(WellKnown.RenderedHashAnnotation, out var carried) || carried != hash) return true;

        // After a restart nothing is known yet: one apply, which changes nothing when nothing differs.
        return applied is not { } last || last.Hash != hash || last.Generation != observed.Metadata.Generation;
    }

    /// <summary>True when the child is what our own apply made of it: its coming and its changing tell us nothing.</summary>
    public bool IsAsApplied(V1Deployment child) => child.Metadata.DeletionTimestamp is null && Find(child) is { } last && last == Of(child);

    /// <summary>True when the two differ in nothing that a decision looks at: most changes of a child are its controller counting pods.</summary>
    public static bool IsSame(V1Deployment before, V1Deployment after)
        => before.Metadata.Uid == after.Metadata.Uid && before.Metadata.DeletionTimestamp == after.Metadata.DeletionTimestamp && Of(before) == Of(after)
            && Owners(before).SequenceEqual(Owners(after), StringComparer.Ordinal);

    private static IEnumerable<string> Owners(V1Deployment child) => child.Metadata.OwnerReferences?.Select(owner => owner.Uid) ?? [];

    private static AppliedChild Of(V1Deployment child) => new(
        child.Metadata.Annotations is { } annotations && annotations.TryGetValue(WellKnown.RenderedHashAnnotation, out var hash) ? hash : "",
        child.Metadata.Generation ?? 0);

    public AppliedChild? Find(V1Deployment? child) => child is not null && applied.TryGetValue(child.Metadata.Uid, out var last) ? last : null;

    public void Applied(V1Deployment result)
        => applied[result.Metadata.Uid] = Of(result);

    public void Forget(V1Deployment child) => applied.TryRemove(child.Metadata.Uid, out _);

    /// <summary>The server will refuse the same child again: it is not asked until then, or something of it changes, or this process starts anew.</summary>
    public void Refused(string ownerUid, V1Deployment rendered, string message, DateTimeOffset? until)
        => refused[ownerUid] = new RefusedChild(Hash(rendered), message, until);

    public RefusedChild? FindRefusal(string? ownerUid) => ownerUid is not null && refused.TryGetValue(ownerUid, out var refusal) ? refusal : null;

    public void ForgetOwner(string ownerUid) => refused.TryRemove(ownerUid, out _);
}
