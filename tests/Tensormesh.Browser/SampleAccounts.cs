using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.TestKit;

/// <summary>Accounts with a month of believable work behind them, made through the same code that the operator and the API use.</summary>
public sealed class SampleAccounts(NpgsqlDataSource database)
{
    public const string Customer = "acme";
    public const string LongName = "the-applied-research-group-for-very-large-language-models-of-the-northern-university-network";
    public const string Empty = "newcomer";
    public const string Model = "meta-llama/Llama-3.3-70B-Instruct";

    private static readonly GpuProduct H100 = new("NVIDIA-H100-80GB-HBM3");
    private static readonly GpuProduct L40S = new("NVIDIA-L40S");
    private static readonly AccountId Acme = new(Customer);

    private readonly NpgsqlDataSource database = database;
    private readonly RunIntervals runs = new(database);
    private readonly Meter meter = new(database);
    private readonly Accounts accounts = new(database);

    /// <param name="now">Everything lies in the month before.</param>
    public async Task MakeAsync(DateTimeOffset now, CancellationToken cancellation)
    {
        TokenPrice[] models =
        [
            new(Model, Money.Parse("0.60"), Money.Parse("1.20"), Money.Parse("0.15")), new("deepseek-ai/DeepSeek-R1", Money.Parse("1.35"), Money.Parse("5.40"), Money.Parse("0.40")),
            new("Qwen/Qwen3-Coder-480B-A35B-Instruct", Money.Parse("0.90"), Money.Parse("3.60"), Money.Parse("0.22")),
        ];
        await new Prices(database).PublishAsync(
            "list", new Dictionary<GpuProduct, Money> { [H100] = Money.Parse("2.50"), [L40S] = Money.Parse("0.86") }, models, now.AddDays(-60), cancellation);
        await OpenAsync(Acme, "Acme Research", "Europe/Berlin", cancellation);
        await OpenAsync(new(LongName), "The Applied Research Group for Very Large Language Models of the Northern University Network", "UTC", cancellation);
        await OpenAsync(new(Empty), "Newcomer", "America/New_York", cancellation);
        var provider = new SandboxPaymentProvider();
        var (cards, topUps) = (new PaymentMethods(database, provider, TimeProvider.System), new TopUps(database, provider, TimeProvider.System));
        foreach (var card in (string[])["pm_card_visa", "pm_card_mastercard", "pm_card_amex", "pm_card_chargeDeclined"]) await cards.AttachAsync(Acme, card, cancellation);
        await cards.AttachAsync(new(LongName), "pm_card_mastercard", cancellation);
        // A card that expired while it was on file, which no payment company would attach now.
        await ExecuteAsync("update payment_method set exp_year = 2025, exp_month = 3 where account = $1 and brand = 'American Express'", Customer, cancellation);
        await topUps.ChargeAsync(Acme, Money.FromUnits(1_500), "pm_card_visa", "sample-1", cancellation);
        await topUps.ChargeAsync(new(LongName), Money.FromUnits(98_765), "pm_card_mastercard", "sample-2", cancellation);
        await new Ledger(database).PostAsync(Movements.CreditGrant(Acme, Money.FromUnits(25), "sample-grant", "platform", "Welcome credit"), cancellation);

        for (var day = 30; day >= 1; day--)
        {
            if (day % 7 is 2 or 3) continue;
            var start = now.AddDays(-day).AddHours(-6);
            var (name, product, gpus) = day % 3 == 0 ? ("embeddings", L40S, 1) : ("llama-finetune", H100, 1 + day % 2);
            await RunAsync(Acme, name, product, gpus, start, start.AddHours(2 + day % 5).AddSeconds(day * 37), cancellation);
        }

        var stopped = await StartAsync(Acme, "nightly-eval", H100, 4, now.AddDays(-2).AddHours(-3), cancellation);
        await meter.SuspendAsync(
            stopped, now.AddDays(-2).AddHours(-1), nameof(RefusalReason.InsufficientBalance), new CreditPolicy(), now.AddDays(-2).AddHours(-1), cancellation);
        await StartAsync(Acme, "llama-serving", H100, 2, now.AddHours(-2), cancellation);
        await StartAsync(Acme, "a-deployment-with-a-name-that-is-as-long-as-people-make-them-when-nobody-stops-them", L40S, 1, now.AddMinutes(-30), cancellation);
        await StartAsync(new(LongName), "cluster-wide-pretraining", H100, 64, now.AddMinutes(-12), cancellation);
        await meter.SettleAsync(Acme, now.AddMinutes(-5), cancellation);
        await UseTokensAsync(models, now, cancellation);
        // By now tokens of a moment ago are settled, too.
        await meter.SettleAsync(Acme, TimeProvider.System.GetUtcNow(), cancellation);
    }

    /// <summary>An account that has only just been declared.</summary>
    public Task OpenAsync(AccountId account, string name, string timeZone, CancellationToken cancellation)
        => accounts.DeclareAsync(account, new AccountPolicy(name, Money.FromUnits(50), null, timeZone), cancellation);

    /// <summary>One pod, running from then on.</summary>
    public async Task<DeploymentId> StartAsync(AccountId account, string name, GpuProduct product, int gpus, DateTimeOffset start, CancellationToken cancellation)
        => (await BeginAsync(account, name, product, gpus, start, cancellation)).Deployment;

    private async Task RunAsync(AccountId account, string name, GpuProduct product, int gpus, DateTimeOffset start, DateTimeOffset end, CancellationToken cancellation)
        => await runs.CloseAsync((await BeginAsync(account, name, product, gpus, start, cancellation)).Pod, end, cancellation);

    private async Task<RunStart> BeginAsync(AccountId account, string name, GpuProduct product, int gpus, DateTimeOffset start, CancellationToken cancellation)
    {
        var run = new RunStart
        {
            Pod = new(Guid.NewGuid()),
            PodName = $"{name[..Math.Min(name.Length, 40)]}-{Guid.NewGuid().ToString("n")[..10]}",
            Deployment = new(Guid.NewGuid()),
            DeploymentName = name,
            Namespace = $"{account.Value[..Math.Min(account.Value.Length, 40)]}-prod",
            Account = account,
            Node = product == H100 ? "gpu-a" : "gpu-b",
            Product = product,
            Gpus = gpus,
            StartedAt = start,
        };
        await runs.OpenAsync(run, cancellation);
        await runs.RecordGpusAsync([new(run.Pod, [.. Enumerable.Range(0, Math.Min(gpus, 8)).Select(_ => $"GPU-{Guid.NewGuid()}")])], cancellation);
        return run;
    }

    private async Task UseTokensAsync(TokenPrice[] models, DateTimeOffset now, CancellationToken cancellation)
    {
        var (tokens, random, events) = (new TokenMeter(database), new Random(7), new List<UsageEvent>());
        for (var day = 30; day >= 0; day--)
        {
            for (var i = 0; i < models.Length * 4; i++)
            {
                var input = random.Next(150_000, 900_000) * (day % 7 is 2 or 3 ? 1 : 4);
                events.Add(new(
                    "sample", $"{day}-{i}", Acme, models[i % models.Length].Model, now.AddDays(-day).AddMinutes(-10 - i), input, (long)(input * random.NextDouble() * 0.7), input / 5));
            }
        }

        await tokens.IngestAsync(events, cancellation);
    }

    private async Task ExecuteAsync(string sql, string value, CancellationToken cancellation)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var command = new NpgsqlCommand(sql, connection) { Parameters = { new() { Value = value } } };
        await command.ExecuteNonQueryAsync(cancellation);
    }
}
