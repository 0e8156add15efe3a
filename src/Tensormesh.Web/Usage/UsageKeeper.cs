using Tensormesh.Billing;

namespace Tensormesh.Web;

/// <summary>
/// Keeps the days of usage (makes the next, drops those of which nothing is taken any more), tells how much usage waits for a price, and knows the models that metrics may
/// name. Each server does: all of it may be done by any number of them.
/// </summary>
internal sealed partial class UsageKeeper(
    TokenMeter meter, Prices prices, WebSettings settings, WebMetrics metrics, TimeProvider time, ILogger<UsageKeeper> logger) : BackgroundService
{
    private static readonly TimeSpan EveryDays = TimeSpan.FromMinutes(30);

    private readonly TokenMeter meter = meter;
    private readonly Prices prices = prices;
    private readonly TimeSpan every = settings.UsageEvery;
    private readonly WebMetrics metrics = metrics;
    private readonly TimeProvider time = time;
    private readonly ILogger<UsageKeeper> logger = logger;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(every, time);
        long? keptAt = null;
        var failed = false;
        // None of it is needed for the first request: a day that is not there is made by whoever needs it.
        while (await timer.WaitForNextTickAsync(stoppingToken))
        {
            try
            {
                metrics.KnowModels((await prices.CurrentTokensAsync(stoppingToken)).Select(price => price.Model));
                var unpriced = await meter.ListUnpricedAsync(stoppingToken);
                metrics.UnpricedEvents.Set(unpriced.Sum(one => one.Events));
                metrics.UnpricedModels.Set(unpriced.Count);
                if (keptAt is not { } at || time.GetElapsedTime(at) >= EveryDays)
                {
                    var dropped = await meter.KeepDaysAsync(stoppingToken);
                    if (dropped > 0) LogDropped(dropped);
                    keptAt = time.GetTimestamp();
                }

                failed = false;
            }
            catch (Exception failure) when (failure is not OperationCanceledException || !stoppingToken.IsCancellationRequested)
            {
                // Once for each outage: rounds are many.
                if (!failed) LogFailed(failure);
                failed = true;
            }
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "Usage events of {Days} days that are past their retention were dropped")]
    private partial void LogDropped(int days);

    [LoggerMessage(Level = LogLevel.Warning, Message = "The days of usage could not be kept, and will be tried again")]
    private partial void LogFailed(Exception failure);
}
