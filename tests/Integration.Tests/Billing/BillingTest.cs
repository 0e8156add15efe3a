using Microsoft.Extensions.Time.Testing;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>A test class with its own database, every part of the money core on it, and words for what tests do often.</summary>
public abstract class BillingTest(PostgresFixture postgres) : IAsyncLifetime
{
    protected static readonly DateTimeOffset T0 = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    protected static readonly GpuProduct H100 = new("NVIDIA-H100-80GB-HBM3");
    protected static readonly GpuProduct L40S = new("NVIDIA-L40S");
    protected static readonly AccountId Acme = new("acme");
    protected static readonly CreditPolicy Policy = new();

    protected NpgsqlDataSource Database { get; private set; } = null!;
    protected FakeTimeProvider Time { get; } = new(T0);
    protected Accounts Accounts { get; private set; } = null!;
    protected Holds Holds { get; private set; } = null!;
    protected Ledger Ledger { get; private set; } = null!;
    protected Meter Meter { get; private set; } = null!;
    protected GpuFaults Faults { get; private set; } = null!;
    protected Prices Prices { get; private set; } = null!;
    protected RunIntervals Runs { get; private set; } = null!;
    protected Transactions Transactions { get; private set; } = null!;
    protected TokenMeter Tokens { get; private set; } = null!;
    protected PaymentMethods Cards { get; private protected set; } = null!;
    protected TopUps TopUps { get; private protected set; } = null!;

    protected static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public virtual async ValueTask InitializeAsync()
    {
        Database = await OpenDatabaseAsync();
        var provider = new SandboxPaymentProvider();
        (Accounts, Holds, Ledger, Meter) = (new(Database), new(Database), new(Database), new(Database));
        (Prices, Runs, Transactions, Faults) = (new(Database), new(Database), new(Database), new(Database));
        Tokens = new(Database, Time);
        (Cards, TopUps) = (new(Database, provider, Time), new(Database, provider, Time));
    }

    /// <summary>Migrated and empty.</summary>
    protected virtual Task<NpgsqlDataSource> OpenDatabaseAsync() => postgres.CreateAsync($"t_{Guid.NewGuid():n}", Cancellation);

    public virtual async ValueTask DisposeAsync()
    {
        // What must hold after every story, whatever it told.
        if (Database is not null)
        {
            try
            {
                await AssertBooksAreSoundAsync();
            }
            finally
            {
                await Database.DisposeAsync();
            }
        }

        GC.SuppressFinalize(this);
    }

    protected Task DeclareAsync(AccountId account)
        => Accounts.DeclareAsync(account, new AccountPolicy(account.Value, null, null, "UTC"), Cancellation);

    /// <summary>An account with a valid card and this much money.</summary>
    protected async Task OpenAsync(AccountId account, string dollars)
    {
        await DeclareAsync(account);
        Assert.Equal(AttachResult.Attached, await Cards.AttachAsync(account, "pm_card_visa", Cancellation));
        if (Money.Parse(dollars) > Money.Zero) await GrantAsync(account, dollars);
    }

    protected async Task GrantAsync(AccountId account, string dollars)
        => Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(
            Movements.CreditGrant(account, Money.Parse(dollars), Guid.NewGuid().ToString(), "tests", "a test"), Cancellation));

    protected Task<IReadOnlyList<PriceVersionId>> PublishAsync(DateTimeOffset at, params (GpuProduct Product, string Dollars)[] prices)
        => Prices.PublishAsync(
            "default", prices.ToDictionary(price => price.Product, price => Money.Parse(price.Dollars)), [], at, Cancellation);

    protected static LaunchRequest Ask(
        DeploymentId deployment, int gpus, string perGpuHour = "2.50", AccountId? account = null, GpuProduct? product = null) => new()
        {
            Deployment = deployment,
            Account = account ?? Acme,
            Namespace = "team-a",
            Gpus = gpus,
            Product = product ?? H100,
            PerGpuHour = Money.Parse(perGpuHour),
            GpuConstraint = $"{gpus} GPUs of product {product ?? H100}",
            GpusInCluster = $"8 x {H100}",
        };

    protected static RunStart Start(
        DeploymentId deployment, PodId pod, int gpus, DateTimeOffset at, AccountId? account = null, GpuProduct? product = null) => new()
        {
            Pod = pod,
            PodName = $"pod-{pod.Value.ToString()[..5]}",
            Deployment = deployment,
            DeploymentName = "train",
            Namespace = "team-a",
            Account = account ?? Acme,
            Node = "gpu-a",
            Product = product ?? H100,
            Gpus = gpus,
            StartedAt = at,
        };

    /// <summary>The GPU was lost: seen well at one instant, and not at the next.</summary>
    protected static GpuFault Lost(string gpu, DateTimeOffset? lastHealthyAt, DateTimeOffset seenAt, DateTimeOffset? recoveredAt = null) => new()
    {
        Gpus = [gpu],
        Gpu = gpu,
        Node = "gpu-a",
        Reason = "Lost",
        Message = "the driver no longer answers for this GPU",
        LastHealthyAt = lastHealthyAt,
        SeenAt = seenAt,
        RecoveredAt = recoveredAt,
    };

    protected static DeploymentId NewDeployment() => new(Guid.NewGuid());

    protected static PodId NewPod() => new(Guid.NewGuid());

    /// <summary>A pod that runs for a new deployment, with a hold in place.</summary>
    protected async Task<(DeploymentId Deployment, PodId Pod)> RunAsync(
        int gpus, DateTimeOffset at, AccountId? account = null, CreditPolicy? policy = null)
    {
        var (deployment, pod) = (NewDeployment(), NewPod());
        Assert.IsType<Verdict.Admit>(await Holds.PlaceAsync(Ask(deployment, gpus, account: account), policy ?? Policy, at, Cancellation));
        Assert.True(await Runs.OpenAsync(Start(deployment, pod, gpus, at, account), Cancellation));
        return (deployment, pod);
    }

    protected async Task<Standing> StandingAsync(AccountId? account = null)
        => (await Accounts.ReadStandingAsync(account ?? Acme, Cancellation))!;

    protected async Task<Money> PostedAsync(AccountId? account = null) => (await StandingAsync(account)).Posted;

    protected async Task<T> ScalarAsync<T>(string sql)
    {
        await using var command = Database.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync(Cancellation))!;
    }

    protected async Task ExecuteAsync(string sql)
    {
        await using var command = Database.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Cancellation);
    }

    /// <summary>What all movements of a type moved on the customer's (or another) ledger account.</summary>
    protected async Task<Money> SumAsync(MovementType type, string ledgerAccount = "customer:acme") => new((long)await ScalarAsync<decimal>(
        $"""
        select coalesce(sum(e.amount_nanos), 0) from ledger_entry e join ledger_account a on a.id = e.ledger_account
        join ledger_transaction t on t.position = e.transaction_position where t.type = '{type}' and a.name = '{ledgerAccount}'
        """));

    private async Task AssertBooksAreSoundAsync()
    {
        Assert.Equal(0m, await ScalarAsync<decimal>("select coalesce(sum(balance), 0) from v_trial_balance"));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from v_trial_balance where difference_to_projection <> 0"));
        Assert.Equal(0L, await ScalarAsync<long>("select count(*) from ledger_balance where amount_nanos < 0"));
        // What reports add up is what was posted.
        await using (var compare = Database.CreateCommand(SqlText.CompareSpending))
        {
            Assert.Null(await compare.ExecuteScalarAsync(Cancellation));
        }

        // What tokens cost is what their running totals come to, and what the ledger has of it is what it was told.
        await using (var compare = Database.CreateCommand(SqlText.CompareTokens))
        await using (var difference = await compare.ExecuteReaderAsync(Cancellation))
        {
            Assert.True(!await difference.ReadAsync(Cancellation), $"{(difference.HasRows ? string.Join(", ", Enumerable.Range(0, 4).Select(difference.GetValue)) : "")}");
        }

        // What runs were charged in all is what the ledger moved for them.
        Assert.Equal(0m, await ScalarAsync<decimal>(
            """
            select coalesce((select sum(total_nanos) from run_interval), 0) - coalesce((
              select -sum(e.amount_nanos) from ledger_entry e join ledger_account a on a.id = e.ledger_account and a.account is not null
              join ledger_transaction t on t.position = e.transaction_position where t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit')), 0)
            """));
    }
}
