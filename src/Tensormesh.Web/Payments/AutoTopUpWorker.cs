using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// Looks for low balances, again and again, and tops them up where their owners said so. Each server does: what keeps a charge single is
/// the database (see <see cref="AutoTopUps"/>), so that no leader is needed.
/// </summary>
internal sealed class AutoTopUpWorker(
    AutoTopUps autoTopUps, WebSettings settings, WebMetrics metrics, TimeProvider time, ILogger<AutoTopUpWorker> log) : BackgroundService
{
    private readonly AutoTopUps autoTopUps = autoTopUps;
    private readonly TimeSpan every = settings.AutoTopUpEvery;
    private readonly WebMetrics metrics = metrics;
    private readonly TimeProvider time = time;
    private readonly ILogger<AutoTopUpWorker> log = log;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(every, time);
        var failed = false;
        do
        {
            try
            {
                var failures = await RunAsync(stoppingToken);
                if (!failed && failures.Count > 0) AutoTopUpLog.Failed(log, failures[0]);
                failed = failures.Count > 0;
            }
            catch (Exception failure) when (failure is not OperationCanceledException || !stoppingToken.IsCancellationRequested)
            {
                // Once for each outage: rounds are many.
                if (!failed) AutoTopUpLog.Failed(log, failure);
                failed = true;
            }
        }
        while (await timer.WaitForNextTickAsync(stoppingToken));
    }

    private async Task<IReadOnlyList<Exception>> RunAsync(CancellationToken cancellation)
    {
        var round = await autoTopUps.RunAsync(cancellation);
        foreach (var result in round.Results)
        {
            metrics.CountAutoTopUp(result.Outcome);
            switch (result.Outcome)
            {
                case AutoTopUpOutcome.Succeeded:
                    AutoTopUpLog.Charged(log, result.Amount, result.Account);
                    break;
                case null:
                    AutoTopUpLog.InDoubt(log, result.Amount, result.Account, result.Message);
                    break;
                case { } refused:
                    AutoTopUpLog.NotCharged(log, result.Amount, result.Account, refused, result.Message);
                    break;
            }
        }

        var counts = await autoTopUps.CountAsync(cancellation);
        metrics.AutoTopUpAccounts.WithLabels("on").Set(counts.On - counts.Disabled);
        metrics.AutoTopUpAccounts.WithLabels("disabled").Set(counts.Disabled);
        return round.Failures;
    }
}

internal static partial class AutoTopUpLog
{
    [LoggerMessage(Level = LogLevel.Information, Message = "Automatic top-up of {Amount} for {Account}")]
    public static partial void Charged(ILogger log, Money amount, AccountId account);

    [LoggerMessage(Level = LogLevel.Information, Message = "Automatic top-up of {Amount} for {Account}: {Outcome}: {Reason}")]
    public static partial void NotCharged(ILogger log, Money amount, AccountId account, AutoTopUpOutcome outcome, string? reason);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Automatic top-up of {Amount} for {Account} is in doubt and is gone on with: {Reason}")]
    public static partial void InDoubt(ILogger log, Money amount, AccountId account, string? reason);

    [LoggerMessage(Level = LogLevel.Warning, Message = "A round of automatic top-ups failed, in part or whole")]
    public static partial void Failed(ILogger log, Exception failure);
}
