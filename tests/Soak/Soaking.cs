using System.Net;
using System.Text.Json.Nodes;
using k8s;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Soak;

/// <summary>The load, a fault each minute and a look at the books after it; then everything comes to rest, and is compared with what was seen of the world.</summary>
internal sealed class Soaking(Stage stage, int minutes, int seed)
{
    private const int Customers = 12;
    private const int Gateways = 2;
    private const int ProveEvery = 5;
    /// <summary>In dollars, for each account: nothing is left unpaid for want of money.</summary>
    private const string LastGrant = "100000";
    private static readonly TimeSpan Minute = TimeSpan.FromMinutes(1);

    private readonly Random random = new(seed);
    private readonly Usage usage = new();

    private Tally Tally => stage.Tally;

    /// <returns>The exit code: 0 when nothing was found.</returns>
    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        var witness = new Witness(stage.Cluster.Hollow);
        var customers = Enumerable.Range(0, Customers).Select(number => new Customer(stage, number, witness, new Random(random.Next()))).ToList();
        await Task.WhenAll(customers.Select(customer => customer.OpenAsync(cancellation)));
        var accounts = customers.Select(customer => customer.Account).ToList();
        var gateways = Enumerable.Range(0, Gateways).Select(number => new Gateway(stage, number, accounts, new Random(random.Next()))).ToList();

        using var load = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var loads = customers.Select(customer => customer.LiveAsync(load.Token, cancellation)).Concat(gateways.Select(gateway => gateway.ReportAsync(load.Token, cancellation))).ToList();
        var deck = new FaultDeck(stage, gateways, new Random(random.Next()));
        for (var minute = 1; minute <= minutes; minute++)
        {
            var next = Task.Delay(Minute, cancellation);
            await StrikeAsync(minute, deck.Draw(), cancellation);
            // A load that has ended early did so by a fault of its own.
            if (loads.FirstOrDefault(each => each.IsFaulted) is { } broken) await broken;
            await next;
            try
            {
                await LookAsync(minute, cancellation);
            }
            catch (StuckException stuck)
            {
                Tally.Find(new(FindingKind.Stuck, stuck.Message));
            }
        }

        Tally.Say($"the load ends");
        await load.CancelAsync();
        await Task.WhenAll(loads);
        await ComeToRestAsync(customers, cancellation);
        await ReckonAsync(customers, gateways, witness, cancellation);
        return Report();
    }

    private async Task StrikeAsync(int minute, Fault fault, CancellationToken cancellation)
    {
        Tally.Fault(fault.Name);
        try
        {
            await fault.StrikeAsync(cancellation);
        }
        catch (Exception failure) when (!cancellation.IsCancellationRequested)
        {
            Tally.Find(new(FindingKind.Stuck, $"minute {minute}, {fault.Name}: {failure.Message}"));
        }

        Tally.Say($"minute {minute}/{minutes}: {fault.Name}; {Tally.Operations} operations");
    }

    /// <summary>What must hold at any instant, and what is taken.</summary>
    private async Task LookAsync(int minute, CancellationToken cancellation)
    {
        await Insistence.UntilAsync("the books are read", async token =>
        {
            foreach (var contradiction in await stage.Books.ContradictionsAsync(token)) Tally.Find(new(FindingKind.Wrong, contradiction));
            usage.Add("Postgres connections", await stage.Books.ConnectionsAsync(token));
            return true;
        }, cancellation);
        if (minute % ProveEvery == 0) await ProveAsync(cancellation);
        foreach (var pid in stage.OperatorPids) usage.Look("operator", pid);
        // The first Web API is killed now and then, the other lives from the beginning to the end.
        usage.Look("web", stage.Product.WebPids[^1]);
    }

    private Task ProveAsync(CancellationToken cancellation) => Insistence.UntilAsync("the ledger is proved", async token =>
    {
        if ((await new LedgerVerifier(stage.Database).VerifyAsync(_ => { }, token)).Difference is { } difference) Tally.Find(new(FindingKind.Wrong, $"the ledger's proof fails: {difference}"));
        return true;
    }, cancellation);

    private async Task ComeToRestAsync(IReadOnlyList<Customer> customers, CancellationToken cancellation)
    {
        await Task.WhenAll(customers.Select(customer => customer.EndAsync(cancellation)));
        foreach (var customer in customers)
        {
            var body = new JsonObject
            {
                ["targetUserId"] = customer.Account.Value,
                ["amount"] = new JsonObject { ["currencyCode"] = "USD", ["units"] = LastGrant, ["nanos"] = 0 },
            }.ToJsonString();
            await Insistence.OnAsync(Tally, "grant credit", async token =>
                await stage.Web.SendAsync(HttpMethod.Post, "/v1/admin/billing/balances:add", stage.Product.AdminToken, body, $"last-{customer.Account}", token) is { Status: HttpStatusCode.OK }, cancellation);
        }

        IReadOnlyList<string> unfinished = [];
        try
        {
            await Insistence.UntilAsync("everything comes to rest", async token =>
            {
                var pods = (await stage.Cluster.Client.CoreV1.ListPodForAllNamespacesAsync(labelSelector: WellKnown.DeploymentLabel, cancellationToken: token)).Items;
                unfinished = [.. await stage.Books.UnfinishedAsync(token), .. pods.Select(pod => $"the pod {pod.Name()} is there")];
                return unfinished.Count == 0;
            }, cancellation, () => string.Join("; ", unfinished));
        }
        catch (StuckException stuck)
        {
            Tally.Find(new(FindingKind.Stuck, stuck.Message));
        }
    }

    private async Task ReckonAsync(IReadOnlyList<Customer> customers, IReadOnlyList<Gateway> gateways, Witness witness, CancellationToken cancellation)
    {
        await ProveAsync(cancellation);
        foreach (var contradiction in await stage.Books.ContradictionsAsync(cancellation)) Tally.Find(new(FindingKind.Wrong, contradiction));
        var taken = TakenFromCards();
        var used = gateways.SelectMany(gateway => gateway.Reported).GroupBy(one => (one.Account, one.Model)).Select(group => new Used(
            group.Key.Account, group.Key.Model, group.Sum(one => one.Events), group.Aggregate(default(TokenTotals), (sum, one) => sum + one.Tokens))).ToList();
        var cost = used.GroupBy(one => one.Account, StringComparer.Ordinal).ToDictionary(
            group => group.Key, group => group.Sum(one => Cost(one.Tokens, Stage.Models.Single(model => model.Model == one.Model))), StringComparer.Ordinal);
        IReadOnlyList<BookedRun> runs = await stage.Books.RunsAsync(cancellation);
        foreach (var finding in Reckoning.OfPayments(taken, await stage.Books.PaymentsAsync(cancellation))
            .Concat(Reckoning.OfWishes([.. customers.SelectMany(customer => customer.Paid)], taken))
            .Concat(Reckoning.OfUsage(used, await stage.Books.UsageAsync(cancellation)))
            .Concat(Reckoning.OfTokenMoney(cost, await stage.Books.TokenMoneyAsync(cancellation)))
            .Concat(Reckoning.OfPods(witness.Seen, runs, stage.Prices.Published))
            .Concat(Usage.Grown(usage.Thirds))) Tally.Find(finding);

        Tally.Operation("pod run", witness.Seen.Count(pod => pod.StartedAt is not null));
        Tally.Say($"compared: {taken.Count} payments, {used.Sum(one => one.Events)} usage events, {witness.Seen.Count} pods of which {witness.Seen.Count(pod => pod.FinishedAt is not null)} were seen to their end, {runs.Count(run => run.ChargeUntil is not null)} stopped for want of money");
    }

    /// <summary>By the payment company's own word.</summary>
    private List<Paid> TakenFromCards() =>
    [
        .. stage.Stripe.Webhooks.Events.Where(one => (string?)one["type"] == "payment_intent.succeeded").Select(one => one["data"]!["object"]!)
            .Select(payment => new Paid((string)payment["id"]!, (long)payment["amount_received"]! * (Money.NanosPerUnit / 100))).DistinctBy(paid => paid.PaymentIntentId),
    ];

    /// <summary>Of a running total, rounded down once: prices of tokens do not change.</summary>
    private static long Cost(TokenTotals tokens, TokenPrice price) => (long)(((Int128)(tokens.Input - tokens.Cached) * price.InputPerMillion.Nanos
        + (Int128)tokens.Cached * price.CachedPerMillion.Nanos + (Int128)tokens.Output * price.OutputPerMillion.Nanos) / 1_000_000);

    private int Report()
    {
        Tally.Say($"operations: {Tally.OperationsInWords}");
        Tally.Say($"faults: {Tally.FaultsInWords}");
        foreach (var (of, first, last) in usage.Thirds)
        {
            Tally.Say($"{of}: {first:0.#} in the first third, {last:0.#} in the last");
            if (first > 0) Write("grown_ratio", last / first, "ratio", "<=1.25", $"{of}, the last third over the first");
        }

        var load = $"{minutes} minutes of mixed load with a fault each minute";
        Write("operations", Tally.Operations, "operations", null, $"done or refused for a reason, for which {Tally.Retries} attempts failed; {load}");
        Write("faults", Tally.Faults, "faults", null, load);
        Write("lost", Tally.Count(FindingKind.Lost), "operations", "0", load);
        Write("doubled", Tally.Count(FindingKind.Doubled), "operations", "0", load);
        Write("otherwise_wrong", Tally.Findings.Count(finding => finding.Kind is FindingKind.Wrong or FindingKind.Stuck or FindingKind.Grown), "findings", "0", load);
        return Tally.Findings.Count == 0 ? 0 : 1;
    }

    private static void Write(string name, double value, string unit, string? goal, string of) => new Figure("soak", name, value, unit, goal, of).Write();
}
