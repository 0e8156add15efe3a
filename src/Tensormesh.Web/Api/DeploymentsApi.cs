using System.Text.Json.Serialization;
using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>What ran, where, for how long and at what price: ours, from the intervals that were charged.</summary>
internal static class DeploymentsApi
{
    public static void MapDeploymentsApi(this IEndpointRouteBuilder routes)
        => routes.MapGet("/v1/billing/runs", ListAsync).WithTags("billing").Refusing(404).Produces<RunsAnswer>();

    /// <summary>Newest first: one run for each pod.</summary>
    private static async Task<IResult> ListAsync(
        string? userId, string? pageSize, string? pageToken, Caller caller, AccountLookup accounts, RunHistory runs, TimeProvider time,
        CancellationToken cancellation)
    {
        if (!caller.MayActFor(userId, out var account, out var refusal)) return refusal;
        if (!Wire.TryReadPageSize(pageSize, out var size, out refusal)) return refusal;
        if (!TryReadToken(pageToken, account, out var before)) return Problem.BadPageToken();
        if (await accounts.FindAsync(account, cancellation) is null) return Problem.AccountUnknown(account);
        var rows = await runs.ListAsync(account, before, size + 1, cancellation);
        var (page, now) = (rows.Take(size).ToArray(), time.GetUtcNow());
        var next = rows.Count > size ? TokenOf(page[^1], account) : "";
        return TypedResults.Ok(new RunsAnswer([.. page.Select(run => RunJson.From(run, now))], next, now.UtcDateTime));
    }

    private static string TokenOf(RunRecord run, AccountId account)
        => $"{PageToken.Write(run.StartedAt.UtcTicks, account, $"runs/{run.Pod.Value:N}")}.{run.Pod.Value:N}";

    private static bool TryReadToken(string? token, AccountId account, out RunPosition? before)
    {
        before = null;
        if (string.IsNullOrEmpty(token)) return true;
        if (token.Split('.') is not [{ Length: > 0 } start, var name] || !Guid.TryParseExact(name, "N", out var pod)) return false;
        if (!PageToken.TryRead(start, account, $"runs/{pod:N}", out var ticks) || ticks > DateTimeOffset.MaxValue.UtcTicks) return false;
        before = new(new DateTimeOffset(ticks!.Value, TimeSpan.Zero), new PodId(pod));
        return true;
    }
}

/// <param name="NextPageToken">Empty on the last page.</param>
/// <param name="AsOf">The instant of every cost.</param>
internal sealed record RunsAnswer(IReadOnlyList<RunJson> Runs, string NextPageToken, DateTime AsOf);

/// <summary>One pod's hold on its GPUs.</summary>
/// <param name="GpuUuids">Of GPUs or MIG instances; empty until its node has told.</param>
/// <param name="PerGpuHour">The price in force, or at its end.</param>
/// <param name="Cost">Of all its GPUs, up to <c>asOf</c>.</param>
/// <param name="ChargedSeconds">For how long it is charged.</param>
/// <param name="SuspendedBecause">Empty: it was not. Otherwise a reason of the GpuDeployment's conditions, such as <c>InsufficientBalance</c>.</param>
internal sealed record RunJson(
    string Pod, string PodName, string Namespace, string Deployment, string Node, string GpuProduct, int Gpus, IReadOnlyList<string> GpuUuids,
    MoneyJson PerGpuHour, DateTime StartedAt, decimal ChargedSeconds, MoneyJson Cost, bool Running, string SuspendedBecause)
{
    /// <summary>When the pod ended; left out while it is there.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? EndedAt { get; init; }

    /// <summary>Where charging stopped before the pod did.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] public DateTime? ChargeUntil { get; init; }

    public static RunJson From(RunRecord run, DateTimeOffset now) => new(
        run.Pod.ToString(), run.PodName, run.Namespace, run.DeploymentName, run.Node, run.Product.Name, run.Gpus, run.GpuUuids,
        MoneyJson.From(run.PerGpuHour), run.StartedAt.UtcDateTime, (decimal)run.Charged(now).Ticks / TimeSpan.TicksPerSecond, MoneyJson.From(run.Cost(now)),
        run.Accruing is not null, run.SuspendedBecause ?? "")
    {
        EndedAt = run.EndedAt?.UtcDateTime,
        ChargeUntil = run.ChargeUntil?.UtcDateTime,
    };
}
