using k8s;
using k8s.Autorest;
using k8s.Models;
using Tensormesh.Resources;
using Tensormesh.TestKit;

namespace Tensormesh.Soak;

/// <summary>Something that goes wrong, and is put right before the next.</summary>
internal sealed record Fault(string Name, Func<CancellationToken, Task> StrikeAsync);

/// <summary>Every fault, one each minute, all of them before any comes again.</summary>
internal sealed class FaultDeck(Stage stage, IReadOnlyList<Gateway> gateways, Random random)
{
    private const int StormOfAdmissions = 200;
    private const int StormOfPayments = 100;
    private const int StormRepeats = 4;
    private static readonly TimeSpan Short = TimeSpan.FromSeconds(5), Long = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan Step = TimeSpan.FromHours(1);

    private readonly Queue<Fault> deck = new();

    public IReadOnlyList<Fault> All =>
    [
        new("operator killed", cancellation => stage.KillOperatorAsync(first: random.Next(2) == 0, cancellation)),
        new("both operators killed", cancellation => Task.WhenAll(stage.KillOperatorAsync(first: true, cancellation), stage.KillOperatorAsync(first: false, cancellation))),
        new("operator paused", cancellation => stage.PauseOperatorAsync(first: random.Next(2) == 0, Long, cancellation)),
        new("Postgres crashed", cancellation => RestartPostgresAsync(stage.Cluster.Postgres.CrashAsync, cancellation)),
        new("Postgres restarted", cancellation => RestartPostgresAsync(stage.Cluster.Postgres.StopAsync, cancellation)),
        new("API server restarted", _ => stage.Cluster.RestartApiServerAsync()),
        new("watch events dropped", cancellation => ThroughTheProxyAsync(proxy => proxy.DropsEvents = true, cancellation)),
        new("watches frozen", cancellation => ThroughTheProxyAsync(proxy => proxy.Freeze(), cancellation)),
        new("watches expired", CutAsync),
        new("clock an hour ahead", cancellation => stage.MisleadOperatorAsync(Step, Long, cancellation)),
        new("clock an hour behind", cancellation => stage.MisleadOperatorAsync(-Step, Long, cancellation)),
        new("events doubled", DoubleAsync),
        new("payment events stormed", StormPaymentsAsync),
        new("admission stormed", StormAdmissionAsync),
        new("payment company failing", FailPaymentsAsync),
        new("Web API killed", KillWebAsync),
        new("prices changed", stage.PublishAsync),
    ];

    public Fault Draw()
    {
        if (deck.Count == 0)
        {
            var all = All.ToArray();
            random.Shuffle(all);
            foreach (var fault in all) deck.Enqueue(fault);
        }

        return deck.Dequeue();
    }

    private async Task RestartPostgresAsync(Func<Task> stop, CancellationToken cancellation)
    {
        await stop();
        try
        {
            await Task.Delay(Short, cancellation);
        }
        finally
        {
            await stage.Cluster.Postgres.RestartAsync();
        }
    }

    private async Task ThroughTheProxyAsync(Action<FaultyProxy> strike, CancellationToken cancellation)
    {
        strike(stage.Proxy);
        try
        {
            await Task.Delay(Long, cancellation);
        }
        finally
        {
            stage.Proxy.Heal();
            // As what was dropped is told by nothing but the next list.
            stage.Proxy.Cut();
        }
    }

    private async Task CutAsync(CancellationToken cancellation)
    {
        stage.Proxy.AnswerGone(times: stage.Proxy.InjectError(410, "too old resource version"));
        await Task.Delay(Short, cancellation);
        stage.Proxy.Cut(after: "{\"type\":\"MODIF");
    }

    /// <summary>Watches tell everything twice, and gateways report everything again.</summary>
    private async Task DoubleAsync(CancellationToken cancellation)
    {
        stage.Proxy.RepeatsEvents = true;
        try
        {
            foreach (var batch in gateways.SelectMany(gateway => gateway.Recent))
            {
                await Insistence.OnAsync(stage.Tally, "usage batch again", async token => await stage.Web.SendUsageAsync(batch, token) is not null, cancellation);
            }

            await Task.Delay(Short, cancellation);
        }
        finally
        {
            stage.Proxy.Heal();
        }
    }

    private async Task StormPaymentsAsync(CancellationToken cancellation)
    {
        var events = stage.Stripe.Webhooks.Events.TakeLast(StormOfPayments).SelectMany(one => Enumerable.Repeat(one, StormRepeats)).ToArray();
        random.Shuffle(events);
        await Parallel.ForEachAsync(events, new ParallelOptions { MaxDegreeOfParallelism = 32, CancellationToken = cancellation }, async (one, token) =>
        {
            try
            {
                using var answer = await stage.Stripe.Webhooks.SendAsync(one, token);
                stage.Tally.Operation("payment event again");
            }
            catch (Exception fault) when (!token.IsCancellationRequested && Insistence.IsPassing(fault))
            {
                // It was delivered before, or will be.
            }
        });
    }

    /// <summary>Nothing of it is kept: each is asked for as a dry run.</summary>
    private Task StormAdmissionAsync(CancellationToken cancellation) => Parallel.ForEachAsync(
        Enumerable.Range(0, StormOfAdmissions), new ParallelOptions { MaxDegreeOfParallelism = 32, CancellationToken = cancellation }, async (number, token) =>
        {
            var deployment = new GpuDeployment
            {
                Metadata = new V1ObjectMeta { Name = FormattableString.Invariant($"storm-{number}") },
                Spec = new GpuDeploymentSpec
                {
                    Replicas = 1,
                    Gpu = new GpuRequirement { Count = 1, Product = Stage.ProductsOfNodes.Values.First() },
                    Template = new V1PodTemplateSpec { Spec = new V1PodSpec { Containers = [new V1Container { Name = "main", Image = DevCluster.WorkloadImage }] } },
                },
            };
            try
            {
                await stage.Cluster.Client.CustomObjects.CreateNamespacedCustomObjectAsync(
                    deployment, WellKnown.Group, WellKnown.Version, "soak-team-0", GpuDeployment.PluralName, dryRun: "All", cancellationToken: token);
                stage.Tally.Operation("dry run");
            }
            catch (HttpOperationException answer) when ((int)answer.Response.StatusCode < 500)
            {
                stage.Tally.Operation("dry run");
            }
            catch (Exception fault) when (!token.IsCancellationRequested && Insistence.IsPassing(fault))
            {
                // Refused for too many at once, or nobody was there: a dry run is nobody's wish.
            }
        });

    private Task FailPaymentsAsync(CancellationToken cancellation)
    {
        foreach (var fault in Enum.GetValues<FakeStripeFault>()) stage.Stripe.Next(fault, "/v1/payment_intents", times: 2);
        return Task.Delay(Long, cancellation);
    }

    private async Task KillWebAsync(CancellationToken cancellation)
    {
        await stage.Product.KillWebAsync();
        await stage.Product.StartWebAsync(cancellation);
    }
}
