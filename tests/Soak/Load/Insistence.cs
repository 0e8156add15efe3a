using System.Net;
using k8s.Autorest;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Soak;

/// <summary>It did not come about within any patience.</summary>
internal sealed class StuckException(string message) : Exception(message);

/// <summary>Does something again until it is done, as clients do whom nobody watches.</summary>
internal static class Insistence
{
    /// <summary>Longer than any fault, a failover after it and a relist after that.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan OfOneAttempt = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(400);

    /// <param name="attempt">True: it is done; false: not yet.</param>
    /// <exception cref="StuckException">It was not done in five minutes; the message has the last error.</exception>
    public static async Task OnAsync(Tally tally, string what, Func<CancellationToken, Task<bool>> attempt, CancellationToken cancellation)
    {
        await UntilAsync(what, async token =>
        {
            try
            {
                return await attempt(token);
            }
            catch (Exception fault) when (IsPassing(fault))
            {
                tally.Retry();
                throw;
            }
        }, cancellation);
        tally.Operation(what);
    }

    /// <summary>Looks until it is so.</summary>
    /// <exception cref="StuckException">It was not so for five minutes; the message has the last error.</exception>
    public static async Task UntilAsync(string what, Func<CancellationToken, Task<bool>> look, CancellationToken cancellation, Func<string>? describe = null)
    {
        var began = TimeProvider.System.GetTimestamp();
        var last = "no error";
        while (TimeProvider.System.GetElapsedTime(began) < Patience)
        {
            cancellation.ThrowIfCancellationRequested();
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(OfOneAttempt);
            try
            {
                if (await look(limit.Token)) return;
            }
            catch (Exception fault) when (!cancellation.IsCancellationRequested && IsPassing(fault))
            {
                last = fault is HttpOperationException answer ? $"{answer.Message}: {answer.Response.Content}" : fault.Message;
            }

            await Task.Delay(Pause, cancellation);
        }

        throw new StuckException($"{what}: not within {Patience.TotalMinutes} minutes ({describe?.Invoke() ?? last})");
    }

    /// <summary>What a fault may cause. Anything else is one of this program, and ends it.</summary>
    public static bool IsPassing(Exception fault) => fault switch
    {
        HttpOperationException answer => (int)answer.Response.StatusCode >= 500 || answer.Response.StatusCode is HttpStatusCode.TooManyRequests or HttpStatusCode.Conflict,
        HttpRequestException or IOException or OperationCanceledException or TimeoutException => true,
        NpgsqlException failed => failed.IsTransient || failed is PostgresException { SqlState: "57P01" or "57P03" } || failed.InnerException is IOException,
        _ => false,
    };
}
