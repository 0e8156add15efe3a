using k8s;
using k8s.Models;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Soak;

/// <summary>
/// The product as it is to be soaked: two operators behind a proxy, two Web APIs, a Stripe of this machine, two kinds of GPUs and
/// three models. Everything of it but the nodes' containers and the payment company is real.
/// </summary>
internal sealed class Stage : IAsyncDisposable
{
    private const string SecondOperator = "tensormesh-operator-2";
    private const string StripePath = "/v1/billing/stripe/webhooks";

    private static readonly InstallationOptions Options = new()
    {
        HoldWindow = TimeSpan.FromSeconds(20),
        MinimumRun = TimeSpan.FromSeconds(2),
        SettlementInterval = TimeSpan.FromSeconds(5),
        SettlementLag = TimeSpan.FromSeconds(1),
        AuditPatience = TimeSpan.FromSeconds(10),
    };

    /// <summary>Nodes' names and what they have.</summary>
    public static readonly IReadOnlyDictionary<string, string> ProductsOfNodes = new Dictionary<string, string>
    {
        ["soak-a"] = "NVIDIA-SOAK-A",
        ["soak-b"] = "NVIDIA-SOAK-B",
    };

    public static readonly TokenPrice[] Models =
    [
        new("vendor/soak-8b-instruct", new(200_000_000), new(600_000_000), new(20_000_000)),
        new("vendor/soak-70b-instruct", new(900_000_000), new(2_700_000_000), new(90_000_000)),
        new("vendor/soak-405b-instruct", new(3_000_000_001), new(9_000_000_007), new(0)),
    ];

    private static readonly IReadOnlyDictionary<string, string> NoChanges = new Dictionary<string, string>();
    private OperatorProcess? second;

    private Stage(DevCluster cluster, Installation product, FakeStripe stripe, FaultyProxy proxy, SteppingClock clock, NpgsqlDataSource database)
    {
        (Cluster, Product, Stripe, Proxy, Clock, Database) = (cluster, product, stripe, proxy, clock, database);
        Books = new Books(database);
    }

    public DevCluster Cluster { get; }
    public Installation Product { get; }
    public FakeStripe Stripe { get; }
    public FaultyProxy Proxy { get; }
    private SteppingClock Clock { get; }
    public NpgsqlDataSource Database { get; }
    public Books Books { get; }
    public Tally Tally { get; } = new();
    public Prices Prices { get; } = new();
    public WebApis Web { get; private set; } = null!;

    /// <summary>Of the operators that run now.</summary>
    public IReadOnlyList<int> OperatorPids => [.. (Product.OperatorRuns ? [Product.OperatorPid] : Array.Empty<int>()), .. (second is null ? Array.Empty<int>() : [second.Pid])];

    public static async Task<Stage> StartAsync(Action<string> say, CancellationToken cancellation)
    {
        var cluster = await DevCluster.StartAsync(new DevClusterOptions { RealNode = false }, say, cancellation);
        var stripe = await FakeStripe.StartAsync(TimeProvider.System);
        // What goes wrong on every day: events come three times, late, in another order or not at all.
        stripe.Webhooks.Plan = number => (FakeStripeDelivery)(number % 5);
        var proxy = await FaultyProxy.StartAsync(cluster, cancellation);
        var clock = await SteppingClock.CreateAsync(cluster, say, cancellation);
        var product = await Installation.PrepareAsync(cluster, Options, cancellation);
        product.OperatorExtras["Tensormesh__Kubeconfig"] = proxy.KubeconfigPath;
        // What a watch never told, while it told of progress, is found by the periodic list alone: within the customers' patience.
        product.OperatorExtras["Tensormesh__Watch__RelistInterval"] = "00:01:00";
        foreach (var (name, value) in WebSettings(stripe)) product.WebExtras[name] = value;
        var stage = new Stage(cluster, product, stripe, proxy, clock, BillingServices.OpenDataSource(product.ConnectionString));
        await product.StartOperatorAsync(cancellation);
        await stage.StartSecondOperatorAsync(NoChanges, cancellation);
        await product.StartWebAsync(cancellation);
        var other = await product.StartAnotherWebAsync("tensormesh-web-2", cancellation);
        stage.Web = new WebApis(product, [product.WebUrl, other], stage.Tally);
        // The one that no fault kills: a payment company goes on asking until it is answered, but not for hours.
        stripe.Webhooks.Address = new Uri(other, StripePath);
        foreach (var (node, gpu) in ProductsOfNodes)
        {
            await cluster.AddHollowNodeAsync(HollowNodeOptions.H100(node) with { GpuProduct = gpu, GpuCount = 256 }, cancellation);
        }

        await stage.PublishAsync(cancellation);
        return stage;
    }

    /// <summary>Other prices of GPUs than before.</summary>
    public Task PublishAsync(CancellationToken cancellation)
    {
        var spec = new PriceBookSpec
        {
            Gpus = [.. ProductsOfNodes.Values.Select(product => new GpuPriceEntry { Product = product, PerHour = Prices.Next().ToDecimalString() })],
            Serverless = [.. Models.Select(model => new ServerlessPriceEntry
            {
                Model = model.Model,
                InputPerMillion = model.InputPerMillion.ToDecimalString(),
                OutputPerMillion = model.OutputPerMillion.ToDecimalString(),
                CachedPerMillion = model.CachedPerMillion.ToDecimalString(),
            })],
        };
        var book = new { apiVersion = WellKnown.ApiVersion, kind = PriceBook.KubeKind, metadata = new { name = "soak" }, spec };
        return Insistence.OnAsync(Tally, "publish prices", async token =>
        {
            await Cluster.Client.CustomObjects.PatchClusterCustomObjectAsync(
                new V1Patch(KubernetesJson.Serialize(book), V1Patch.PatchType.ApplyPatch), WellKnown.Group, WellKnown.Version, PriceBook.PluralName, "soak",
                fieldManager: "soak", force: true, cancellationToken: token);
            return true;
        }, cancellation);
    }

    public async Task KillOperatorAsync(bool first, CancellationToken cancellation)
    {
        if (first)
        {
            await Product.KillOperatorAsync();
            await Product.LaunchOperatorAsync();
            await Product.WaitForOperatorAsync(cancellation);
        }
        else
        {
            await KillSecondOperatorAsync();
            await StartSecondOperatorAsync(NoChanges, cancellation);
        }
    }

    /// <summary>
    /// Lets an operator lead whose clock is right, then wrong for so long, then right again. Only for this has one a clock that can be set: what stands
    /// between it and the kernel's costs it a processor.
    /// </summary>
    public async Task MisleadOperatorAsync(TimeSpan ahead, TimeSpan time, CancellationToken cancellation)
    {
        Clock.Set(TimeSpan.Zero);
        await KillSecondOperatorAsync();
        await StartSecondOperatorAsync(Clock.Environment, cancellation);
        await Product.KillOperatorAsync();
        try
        {
            using var http = new HttpClient();
            await Insistence.UntilAsync("the second operator leads", async token =>
                (await http.GetStringAsync(second!.MetricsUrl, token)).Contains("\ntensormesh_leader 1\n", StringComparison.Ordinal), cancellation);
            Clock.Set(ahead);
            await Task.Delay(time, cancellation);
            Clock.Set(TimeSpan.Zero);
            await Task.Delay(time, cancellation);
        }
        finally
        {
            await Product.LaunchOperatorAsync();
            await Product.WaitForOperatorAsync(cancellation);
        }

        await KillSecondOperatorAsync();
        await StartSecondOperatorAsync(NoChanges, cancellation);
    }

    /// <summary>Lets no instruction of it run for so long.</summary>
    public async Task PauseOperatorAsync(bool first, TimeSpan time, CancellationToken cancellation)
    {
        if (first) Product.PauseOperator();
        else second!.Pause();
        try
        {
            await Task.Delay(time, cancellation);
        }
        finally
        {
            if (first) Product.ResumeOperator();
            else second!.Resume();
        }
    }

    public async ValueTask DisposeAsync()
    {
        Stripe.Webhooks.Address = null;
        await KillSecondOperatorAsync();
        await Product.DisposeAsync();
        await Database.DisposeAsync();
        await Proxy.DisposeAsync();
        await Stripe.DisposeAsync();
        Web?.Dispose();
        await Cluster.DisposeAsync();
    }

    private async Task StartSecondOperatorAsync(IReadOnlyDictionary<string, string> changes, CancellationToken cancellation)
    {
        second = await Product.StartAnotherOperatorAsync(SecondOperator, changes);
        await second.WaitUntilReadyAsync(cancellation);
    }

    private async Task KillSecondOperatorAsync()
    {
        if (second is null) return;
        await second.DisposeAsync();
        second = null;
    }

    private static Dictionary<string, string> WebSettings(FakeStripe stripe) => new()
    {
        ["Tensormesh__Payments__Provider"] = "Stripe",
        ["Tensormesh__Payments__StripeSecretKey"] = FakeStripe.SecretKey,
        ["Tensormesh__Payments__StripeApiBase"] = stripe.Address.ToString(),
        ["Tensormesh__Payments__StripeWebhookSecret"] = FakeStripe.WebhookSecret,
        ["Tensormesh__Payments__ReconcileSeconds"] = "20",
        ["Tensormesh__RequestsPerSecond"] = "10000",
        ["Tensormesh__RequestBurst"] = "10000",
    };
}

/// <summary>Every price of GPUs that was published: from three to fifteen dollars a minute for each.</summary>
internal sealed class Prices
{
    private const long PerHourFrom = 180_000_000_000, PerHourTo = 900_000_000_000, Step = 10_000_001;
    private readonly Lock gate = new();
    private readonly HashSet<long> published = [];
    private readonly Random random = new();

    public IReadOnlyCollection<long> Published
    {
        get
        {
            lock (gate) return [.. published];
        }
    }

    public Money Next()
    {
        lock (gate)
        {
            var price = PerHourFrom + random.NextInt64((PerHourTo - PerHourFrom) / Step) * Step;
            published.Add(price);
            return new Money(price);
        }
    }
}
