using System.Collections.Concurrent;
using System.Globalization;
using System.Text.Json;
using Tensormesh.Billing;

namespace Tensormesh.Soak;

/// <summary>An inference server that reports what its requests used: a batch until it is taken, and some of them again.</summary>
internal sealed class Gateway(Stage stage, int number, IReadOnlyList<AccountId> accounts, Random random)
{
    private const int BatchSize = 20;
    private const int Remembered = 200;
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(1);

    private readonly ConcurrentDictionary<(string Account, string Model), (long Events, TokenTotals Tokens)> reported = new();
    private readonly Queue<string> recent = new();
    private long ids;

    /// <summary>What was taken, each event once.</summary>
    public IReadOnlyList<Used> Reported => [.. reported.Select(pair => new Used(pair.Key.Account, pair.Key.Model, pair.Value.Events, pair.Value.Tokens))];

    /// <summary>What it reported of late, which comes again when events are doubled.</summary>
    public IReadOnlyList<string> Recent
    {
        get
        {
            lock (recent) return [.. recent];
        }
    }

    public async Task ReportAsync(CancellationToken until, CancellationToken cancellation)
    {
        while (!until.IsCancellationRequested)
        {
            var batch = Enumerable.Range(0, BatchSize).Select(_ => Make()).ToList();
            var json = Json(batch);
            await SendAsync("usage batch", json, cancellation);
            // Only now: what nobody took was not promised to be metered.
            foreach (var used in batch) Count(used);
            lock (recent)
            {
                recent.Enqueue(json);
                while (recent.Count > Remembered) recent.Dequeue();
            }

            if (random.Next(10) == 0) await SendAsync("usage batch again", json, cancellation);
            await Task.Delay(Rest, until).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>A gateway has nowhere else to go with it: it goes on, but it says so.</summary>
    private async Task SendAsync(string what, string json, CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                await Insistence.OnAsync(stage.Tally, what, token => TakenAsync(json, token), cancellation);
                return;
            }
            catch (StuckException stuck)
            {
                stage.Tally.Find(new(FindingKind.Stuck, $"gateway {number}: {stuck.Message}"));
            }
        }
    }

    private async Task<bool> TakenAsync(string json, CancellationToken cancellation)
    {
        if (await stage.Web.SendUsageAsync(json, cancellation) is not { } answer) return false;
        if (answer.Status != System.Net.HttpStatusCode.OK || answer.Body.GetProperty("accepted").GetInt32() + answer.Body.GetProperty("duplicate").GetInt32() != BatchSize)
        {
            throw new StuckException($"usage was answered with {answer.Status}: {answer.Body}");
        }

        return true;
    }

    private UsageEvent Make()
    {
        var input = random.Next(10, 20_000);
        return new UsageEvent(
            FormattableString.Invariant($"/inference/soak-{number}"), FormattableString.Invariant($"chatcmpl-{number}-{++ids}"), accounts[random.Next(accounts.Count)],
            Stage.Models[random.Next(Stage.Models.Length)].Model, TimeProvider.System.GetUtcNow().AddMilliseconds(-random.Next(30_000)).ToLedgerTime(), input, random.Next(input),
            random.Next(1, 2_000));
    }

    private void Count(UsageEvent used) => reported.AddOrUpdate(
        (used.Account.Value, used.Model), (1, new TokenTotals(used.Input, used.Cached, used.Output)),
        (_, sum) => (sum.Events + 1, sum.Tokens + new TokenTotals(used.Input, used.Cached, used.Output)));

    private static string Json(IEnumerable<UsageEvent> batch) => JsonSerializer.Serialize(batch.Select(used => new
    {
        specversion = "1.0",
        id = used.Id,
        source = used.Source,
        type = "ai.tensormesh.serverless.usage.v1",
        time = used.At.ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture),
        data = new { account = used.Account.Value, model = used.Model, inputTokens = used.Input, cachedTokens = used.Cached, outputTokens = used.Output },
    }));
}
