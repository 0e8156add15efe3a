using k8s;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Benchmarks;

/// <summary>
/// What GPU time costs past the end of a balance. A real operator on a dev cluster runs work on twenty accounts whose money ends at
/// random instants; counted is what the ledger says: charges above what an account was given, and what was written off as uncollected.
/// </summary>
internal static class OverspendBenchmark
{
    private const int Exhaustions = 20;
    /// <summary>A dollar a second for each GPU.</summary>
    private const string PerHour = "3600.00";
    private const double LeastSeconds = 8;
    private const double MostSeconds = 38;
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan Glance = TimeSpan.FromMilliseconds(250);

    private static readonly InstallationOptions Options = new()
    {
        HoldWindow = TimeSpan.FromSeconds(5),
        MinimumRun = TimeSpan.FromSeconds(1),
        SettlementInterval = TimeSpan.FromSeconds(2),
        SettlementLag = TimeSpan.FromSeconds(1),
        Webhook = false,
    };

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        await using var cluster = await DevCluster.StartAsync(
            new DevClusterOptions { RealNode = false }, line => Workplace.Say($"{line}"), cancellation);
        await using var installation = await Installation.StartAsync(cluster, Options, line => Workplace.Say($"{line}"), cancellation);
        await using var database = BillingServices.OpenDataSource(installation.ConnectionString);
        await cluster.AddHollowNodeAsync(HollowNodeOptions.H100("gpus") with { GpuProduct = RunningWork.Product.Name, GpuCount = 64 }, cancellation);
        await CreateAsync(cluster.Client, PriceBook.PluralName, new PriceBook
        {
            Metadata = new V1ObjectMeta { Name = "overspend" },
            Spec = new PriceBookSpec { Gpus = [new GpuPriceEntry { Product = RunningWork.Product.Name, PerHour = PerHour }] },
        }, cancellation);

        var seed = Random.Shared.Next();
        var random = new Random(seed);
        Workplace.Say($"seed {seed}");
        var given = Enumerable.Range(0, Exhaustions)
            .Select(_ => new Money((long)((LeastSeconds + random.NextDouble() * (MostSeconds - LeastSeconds)) * Money.NanosPerUnit))).ToArray();
        await Task.WhenAll(given.Select((money, i) => BeginAsync(cluster.Client, database, i, money, cancellation)));

        await UntilAsync(database, $"select count(*) >= {Exhaustions} from suspension where reason = 'InsufficientBalance'", cancellation);
        await UntilAsync(database, $"select count(*) >= {Exhaustions} and count(*) = count(ended_at) from run_interval", cancellation);

        await using var read = database.CreateCommand(
            """
            with account_total as (
              select a.account,
                coalesce(sum(e.amount_nanos) filter (where t.type in ('TopUp', 'CreditGrant')), 0) as paid,
                -coalesce(sum(e.amount_nanos) filter (where t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit')), 0) as charged
              from ledger_entry e join ledger_account a on a.id = e.ledger_account and a.account is not null
              join ledger_transaction t on t.position = e.transaction_position group by a.account),
            lost as (
              select coalesce(sum(e.amount_nanos), 0) as nanos from ledger_entry e
              join ledger_transaction t on t.position = e.transaction_position and t.type = 'Uncollected' where e.amount_nanos > 0)
            select (select sum(greatest(0, charged - paid)) from account_total) + (select nanos from lost),
              (select sum(charged) from account_total), (select sum(paid) from account_total),
              (select max(paid - charged) from account_total),
              (select max(extract(epoch from decided_at - at))::float8 from suspension where reason = 'InsufficientBalance'),
              (select max(extract(epoch from ended_at - charge_until))::float8 from run_interval where charge_until is not null)
            """);
        await using var reader = await read.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        var (over, charged, paid, left) = (reader.GetDecimal(0), reader.GetDecimal(1), reader.GetDecimal(2), reader.GetDecimal(3));
        var (decided, stopped) = (reader.GetDouble(4), reader.GetDouble(5));
        Workplace.Say(
            $"{charged} of {paid} nanos charged, at most {left} left on an account; decided at most {decided:0.000} s and pods gone at most {stopped:0.000} s after zero, load {Workplace.LoadAverage()}");
        workplace.Report(
            "nanos", (double)over, "nanos", "0",
            $"charged past what was paid, or written off, over {Exhaustions} exhaustions at random instants ({charged} nanos charged in all)");
        workplace.Report("late_s", decided, "s", null, "from the instant of exhaustion to its suspension in the ledger, the latest of them");
    }

    /// <summary>An account with a card and this much money, and a deployment of one GPU that spends it.</summary>
    private static async Task BeginAsync(IKubernetes client, NpgsqlDataSource database, int number, Money money, CancellationToken cancellation)
    {
        var (account, team) = (new AccountId($"account-{number}"), $"team-{number}");
        await CreateAsync(
            client, BillingAccount.PluralName,
            new BillingAccount { Metadata = new V1ObjectMeta { Name = account.Value }, Spec = new BillingAccountSpec() }, cancellation);
        var labels = new Dictionary<string, string> { [WellKnown.AccountLabel] = account.Value };
        await client.CoreV1.CreateNamespaceAsync(
            new V1Namespace { Metadata = new V1ObjectMeta { Name = team, Labels = labels } }, cancellationToken: cancellation);
        await UntilAsync(database, $"select exists (select from account where id = '{account}')", cancellation);
        await new PaymentMethods(database, new SandboxPaymentProvider(), TimeProvider.System).AttachAsync(account, "pm_card_visa", cancellation);
        var granted = await new Ledger(database).PostAsync(
            Movements.CreditGrant(account, money, "all", "benchmark", "all that there is"), cancellation);
        if (granted is not PostResult.Posted) throw new InvalidOperationException($"{granted}");
        await client.CustomObjects.CreateNamespacedCustomObjectAsync(
            new GpuDeployment
            {
                Metadata = new V1ObjectMeta { Name = "spender", NamespaceProperty = team },
                Spec = new GpuDeploymentSpec
                {
                    Replicas = 1,
                    Gpu = new GpuRequirement { Count = 1, Product = RunningWork.Product.Name },
                    Template = new V1PodTemplateSpec
                    {
                        Spec = new V1PodSpec { Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }] },
                    },
                },
            },
            WellKnown.Group, WellKnown.Version, team, GpuDeployment.PluralName, cancellationToken: cancellation);
    }

    private static Task<object> CreateAsync(IKubernetes client, string plural, object body, CancellationToken cancellation)
        => client.CustomObjects.CreateClusterCustomObjectAsync(
            body, WellKnown.Group, WellKnown.Version, plural, cancellationToken: cancellation);

    private static async Task UntilAsync(NpgsqlDataSource database, string question, CancellationToken cancellation)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(Limit);
        while (true)
        {
            await using var command = database.CreateCommand(question);
            if (await command.ExecuteScalarAsync(deadline.Token) is true) return;
            await Task.Delay(Glance, deadline.Token);
        }
    }
}
