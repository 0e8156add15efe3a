using System.Net;
using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Soak;

/// <summary>
/// One account and what its holder does with kubectl and on the Billing page: applies, scales, pauses, resumes and deletes deployments, adds balance when it
/// runs out, reads what was charged. Nothing that the holder wants is given up: it is tried again until it is done or refused for a reason.
/// </summary>
internal sealed class Customer(Stage stage, int number, Witness witness, Random random)
{
    private const int MostDeployments = 3;
    private const int LongestRestMilliseconds = 5_000;
    private static readonly TimeSpan PaymentPatience = TimeSpan.FromSeconds(30);
    private static readonly string[] Pages =
    [
        "/v1/billing/overview", "/v1/billing/transactions?pageSize=20", "/v1/billing/runs", "/v1/billing/serverless-usage", "/v1/billing/balance",
        "/v1/billing/spending/summary", "/v1/billing/stripe/customers/payment-methods",
    ];

    private readonly string team = FormattableString.Invariant($"soak-team-{number}");
    private readonly string token = stage.Product.Token(FormattableString.Invariant($"soak-account-{number}"));
    private readonly Dictionary<string, Wish> wishes = new(StringComparer.Ordinal);
    private readonly List<Paid> paid = [];
    private string card = "";
    private int names;
    private int keys;

    /// <summary>What the holder asked for.</summary>
    private sealed record Wish(int Replicas, bool Paused = false);

    public AccountId Account { get; } = new(FormattableString.Invariant($"soak-account-{number}"));

    /// <summary>Every payment that the customer was told of.</summary>
    public IReadOnlyList<Paid> Paid => paid;

    private Tally Tally => stage.Tally;

    public async Task OpenAsync(CancellationToken cancellation)
    {
        witness.Payers[team] = Account.Value;
        await stage.Cluster.Client.CustomObjects.CreateClusterCustomObjectAsync(
            new BillingAccount { Metadata = new V1ObjectMeta { Name = Account.Value }, Spec = new BillingAccountSpec() }, WellKnown.Group, WellKnown.Version,
            BillingAccount.PluralName, cancellationToken: cancellation);
        await stage.Cluster.Client.CoreV1.CreateNamespaceAsync(
            new V1Namespace { Metadata = new V1ObjectMeta { Name = team, Labels = new Dictionary<string, string> { [WellKnown.AccountLabel] = Account.Value } } },
            cancellationToken: cancellation);
        // Until the operator has declared the account, nobody knows it.
        var setup = "";
        await Insistence.OnAsync(Tally, "begin a card", async limit =>
        {
            if (await SendAsync(HttpMethod.Post, "/v1/billing/stripe/setup-intents", "{}", null, limit) is not { Status: HttpStatusCode.OK } begun) return false;
            setup = begun.Body.GetProperty("stripeSetupIntentId").GetString()!;
            return true;
        }, cancellation);
        card = stage.Stripe.Books.ConfirmSetup(setup, "pm_card_visa");
        await Insistence.OnAsync(Tally, "attach a card", async limit => await SendAsync(
            HttpMethod.Post, "/v1/billing/stripe/customers/payment-methods", $$"""{"stripePaymentMethodId":"{{card}}"}""", null, limit) is { Status: HttpStatusCode.OK }, cancellation);
        await TopUpAsync(random.Next(20, 60), cancellation);
    }

    public async Task LiveAsync(CancellationToken until, CancellationToken cancellation)
    {
        while (!until.IsCancellationRequested)
        {
            try
            {
                await ActAsync(cancellation);
            }
            catch (StuckException stuck)
            {
                Tally.Find(new(FindingKind.Stuck, $"{Account}: {stuck.Message}"));
            }

            await Task.Delay(random.Next(LongestRestMilliseconds), until).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>Deletes everything, and returns when all of it is gone.</summary>
    public async Task EndAsync(CancellationToken cancellation)
    {
        foreach (var name in wishes.Keys.ToList())
        {
            try
            {
                await DeleteAsync(name, cancellation);
            }
            catch (StuckException stuck)
            {
                Tally.Find(new(FindingKind.Stuck, $"{Account}: {stuck.Message}"));
            }
        }
    }

    private Task ActAsync(CancellationToken cancellation)
    {
        var name = wishes.Count > 0 ? wishes.Keys.ElementAt(random.Next(wishes.Count)) : null;
        return random.Next(20) switch
        {
            < 5 when wishes.Count < MostDeployments => ApplyAsync(cancellation),
            < 8 when name is not null => WantAsync("scale", name, wishes[name] with { Replicas = random.Next(0, 4) }, cancellation),
            < 10 when name is not null => WantAsync(wishes[name].Paused ? "resume" : "pause", name, wishes[name] with { Paused = !wishes[name].Paused }, cancellation),
            < 13 when name is not null => DeleteAsync(name, cancellation),
            < 14 => TopUpAsync(random.Next(5, 40), cancellation),
            _ => ReadAsync(cancellation),
        };
    }

    private async Task ApplyAsync(CancellationToken cancellation)
    {
        var (name, wish) = (FormattableString.Invariant($"train-{++names}"), new Wish(random.Next(1, 4)));
        var deployment = Render(name, wish);
        await AskAsync("apply", name, wish, async limit =>
        {
            try
            {
                await stage.Cluster.Client.CustomObjects.CreateNamespacedCustomObjectAsync(
                    deployment, WellKnown.Group, WellKnown.Version, team, GpuDeployment.PluralName, cancellationToken: limit);
            }
            catch (HttpOperationException answer) when (answer.Response.Content.Contains("AlreadyExists", StringComparison.Ordinal))
            {
                // The answer to an earlier attempt was lost.
            }
        }, cancellation);
    }

    private Task WantAsync(string what, string name, Wish wish, CancellationToken cancellation) => AskAsync(
        what, name, wish,
        limit => stage.Cluster.Client.CustomObjects.PatchNamespacedCustomObjectAsync(
            new V1Patch(KubernetesJson.Serialize(new { spec = new { replicas = wish.Replicas, paused = wish.Paused } }), V1Patch.PatchType.MergePatch),
            WellKnown.Group, WellKnown.Version, team, GpuDeployment.PluralName, name, cancellationToken: limit),
        cancellation);

    /// <summary>Asks until it is granted or refused for want of money, and then looks until it is so.</summary>
    private async Task AskAsync(string what, string name, Wish wish, Func<CancellationToken, Task> ask, CancellationToken cancellation)
    {
        var refused = false;
        await Insistence.OnAsync(Tally, what, async limit =>
        {
            try
            {
                await ask(limit);
                return true;
            }
            catch (HttpOperationException answer) when (IsDenial(answer))
            {
                return refused = IsForMoney(answer);
            }
        }, cancellation);
        if (refused)
        {
            Tally.Operation("refused at admission");
            await TopUpAsync(random.Next(20, 60), cancellation);
            return;
        }

        wishes[name] = wish;
        await SeeAsync(name, wish, cancellation);
    }

    private async Task DeleteAsync(string name, CancellationToken cancellation)
    {
        wishes.Remove(name);
        var isTold = false;
        await Insistence.OnAsync(Tally, "delete", async limit =>
        {
            try
            {
                if (!isTold)
                {
                    await stage.Cluster.Client.CustomObjects.DeleteNamespacedCustomObjectAsync(
                        WellKnown.Group, WellKnown.Version, team, GpuDeployment.PluralName, name, cancellationToken: limit);
                    isTold = true;
                }

                await ReadAsync(name, limit);
                return false;
            }
            catch (HttpOperationException gone) when (gone.Response.StatusCode == HttpStatusCode.NotFound)
            {
                return true;
            }
        }, cancellation);
    }

    /// <summary>Looks until the deployment is as it was asked for, and pays for it when it is stopped for want of money.</summary>
    private async Task SeeAsync(string name, Wish wish, CancellationToken cancellation)
    {
        GpuDeployment? last = null;
        var paidAt = long.MinValue;
        await Insistence.UntilAsync($"{name} is as it was asked for", async limit =>
        {
            last = await ReadAsync(name, limit);
            var ready = last.Status?.Conditions?.FirstOrDefault(condition => condition.Type == ConditionTypes.Ready);
            if (ready is null || ready.ObservedGeneration != last.Metadata.Generation) return false;
            if (ready.Reason == nameof(RefusalReason.InsufficientBalance))
            {
                // What was paid takes a moment to be seen.
                if (paidAt != long.MinValue && TimeProvider.System.GetElapsedTime(paidAt) < PaymentPatience) return false;
                Tally.Operation("stopped for want of money");
                await TopUpAsync(random.Next(20, 60), cancellation);
                paidAt = TimeProvider.System.GetTimestamp();
                return false;
            }

            return wish switch
            {
                { Paused: true } => ready.Reason == ConditionReasons.Paused,
                { Replicas: 0 } => ready.Reason == ConditionReasons.ScaledToZero,
                _ => ready.Status == "True" && last.Status!.ReadyReplicas == wish.Replicas,
            };
        }, cancellation, () => last?.Status is { } status ? KubernetesJson.Serialize(status) : "it has no status");
    }

    /// <summary>With one key until it is answered: whoever has no answer asks again.</summary>
    private async Task TopUpAsync(int units, CancellationToken cancellation)
    {
        var key = FormattableString.Invariant($"{Account}-{++keys}");
        await Insistence.OnAsync(Tally, "top up", async limit =>
        {
            var body = $$$"""{"amount":{"currencyCode":"USD","units":"{{{units}}}"},"stripePaymentMethodId":"{{{card}}}"}""";
            if (await SendAsync(HttpMethod.Post, "/v1/billing/stripe/payment-intents", body, key, limit) is not { } answer) return false;
            if (answer.Status != HttpStatusCode.OK) throw new StuckException($"a top-up of {units} was answered with {answer.Status}: {answer.Body}");
            paid.Add(new(answer.Body.GetProperty("stripePaymentIntentId").GetString()!, Money.FromUnits(units).Nanos));
            return true;
        }, cancellation);
    }

    private async Task ReadAsync(CancellationToken cancellation)
    {
        var page = Pages[random.Next(Pages.Length)];
        await Insistence.OnAsync(Tally, "read a page", async limit =>
        {
            if (await SendAsync(HttpMethod.Get, page, null, null, limit) is not { } answer) return false;
            return answer.Status == HttpStatusCode.OK ? true : throw new StuckException($"{page} was answered with {answer.Status}: {answer.Body}");
        }, cancellation);
    }

    private Task<(HttpStatusCode Status, System.Text.Json.JsonElement Body)?> SendAsync(HttpMethod method, string path, string? json, string? key, CancellationToken cancellation)
        => stage.Web.SendAsync(method, path, token, json, key, cancellation);

    private Task<GpuDeployment> ReadAsync(string name, CancellationToken cancellation) => stage.Cluster.Client.CustomObjects.GetNamespacedCustomObjectAsync<GpuDeployment>(
        WellKnown.Group, WellKnown.Version, team, GpuDeployment.PluralName, name, cancellation);

    /// <summary>The gate's own words, and not that it could not be asked.</summary>
    private static bool IsDenial(HttpOperationException answer) => answer.Response.Content.Contains("denied the request", StringComparison.Ordinal);

    /// <summary>Other denials are those of an operator that has not heard of something yet, or cannot read the ledger: they pass.</summary>
    private static bool IsForMoney(HttpOperationException answer) => answer.Response.Content.Contains(" is short by $", StringComparison.Ordinal);

    private GpuDeployment Render(string name, Wish wish) => new()
    {
        Metadata = new V1ObjectMeta { Name = name, NamespaceProperty = team },
        Spec = new GpuDeploymentSpec
        {
            Replicas = wish.Replicas,
            Gpu = new GpuRequirement { Count = random.Next(1, 3), Product = Stage.ProductsOfNodes.Values.ElementAt(random.Next(Stage.ProductsOfNodes.Count)) },
            Template = new V1PodTemplateSpec
            {
                Spec = new V1PodSpec
                {
                    TerminationGracePeriodSeconds = 5,
                    Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }],
                },
            },
        },
    };
}
