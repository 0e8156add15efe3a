using System.Text.Json.Nodes;
using k8s;
using Tensormesh.Resources;

namespace Resources.Tests;

/// <summary>The CRDs and <see cref="Validation"/> refuse the same objects: one runs on every API server, the other on new ones only.</summary>
public sealed class RefusalsAgreeTests
{
    private static readonly ApiServer GpuDeployments = new(GpuDeployment.PluralName);
    private static readonly ApiServer BillingAccounts = new(BillingAccount.PluralName);
    private static readonly ApiServer PriceBooks = new(PriceBook.PluralName);

    private static readonly string Long = new('a', 64);
    private static readonly string Containers33 =
        string.Join(", ", Enumerable.Range(0, 33).Select(i => $$"""{"name": "c{{i}}"}"""));

    /// <summary>Merge patches onto a sound deployment.</summary>
    public static TheoryData<string> BadDeployments =>
    [
        $$"""{"metadata": {"name": "{{Long}}"} }""",
        """{"spec": {"replicas": -1}}""",
        """{"spec": {"replicas": 1001}}""",
        """{"spec": {"replicas": 126, "gpu": {"count": 8}}}""",
        """{"spec": {"gpu": {"count": 0}}}""",
        """{"spec": {"gpu": {"count": 17}}}""",
        """{"spec": {"gpu": {"product": ""}}}""",
        """{"spec": {"gpu": {"product": "NVIDIA H100"}}}""",
        $$"""{"spec": {"gpu": {"product": "{{Long}}"} } }""",
        """{"spec": {"gpu": {"minMemory": "0Gi"}}}""",
        """{"spec": {"gpu": {"minMemory": "0.000"}}}""",
        """{"spec": {"gpu": {"minMemory": "40GB"}}}""",
        """{"spec": {"gpu": {"minComputeCapability": "9"}}}""",
        """{"spec": {"gpu": {"container": "worker"}}}""",
        """{"spec": {"gpu": {"container": ""}}}""",
        """{"spec": {"budget": {"maxHourlyRate": "0"}}}""",
        """{"spec": {"budget": {"maxHourlyRate": "-1"}}}""",
        """{"spec": {"budget": {"maxTotalCost": "0.000000000"}}}""",
        """{"spec": {"budget": {"maxTotalCost": "1e3"}}}""",
        """{"spec": {"budget": {"maxTotalCost": "0.0000000001"}}}""",
        """{"spec": {"template": null}}""",
        """{"spec": {"template": {"spec": null}}}""",
        """{"spec": {"template": {"spec": {"containers": null}}}}""",
        """{"spec": {"template": {"spec": {"containers": []}}}}""",
        $$"""{"spec": {"template": {"spec": {"containers": [{{Containers33}}]} } } }""",
        """{"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}""",
        """{"spec": {"template": {"spec": {"containers": [{"name": "Upper"}]}}}}""",
        """{"spec": {"template": {"spec": {"containers": [{"name": "twin"}, {"name": "twin"}]}}}}""",
        """{"spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}}}}""",
        """{"spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"requests": {"nvidia.com/mig-1g.10gb": "1"}}}]}}}}""",
        """{"spec": {"template": {"spec": {"initContainers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}}}}""",
        """{"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}""",
        """{"spec": {"template": {"metadata": {"labels": {"a": 1}}}}}""",
    ];

    public static TheoryData<string> GoodDeployments =>
    [
        "{}",
        """{"spec": {"replicas": 0, "gpu": null, "budget": {}, "paused": true}}""",
        """{"spec": {"replicas": 125, "gpu": {"count": 8}}}""",
        """{"spec": {"gpu": {"minMemory": "0.001Ki", "minComputeCapability": "12.0", "container": "trainer"}}}""",
        """{"spec": {"budget": {"maxHourlyRate": "0.000000001", "maxTotalCost": "999999999.999999999"}}}""",
        """{"spec": {"template": {"spec": {"restartPolicy": "Always", "initContainers": [{"name": "init"}]}}}}""",
        """{"spec": {"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}}}}""",
    ];

    [Theory]
    [MemberData(nameof(BadDeployments))]
    public void Both_refuse_a_bad_deployment(string patch)
    {
        var value = Deployment(patch);

        Assert.NotEmpty(GpuDeployments.Refusals(value));
        Assert.NotEmpty(Validation.Validate(Read<GpuDeployment>(value)));
    }

    [Theory]
    [MemberData(nameof(GoodDeployments))]
    public void Both_admit_a_good_deployment(string patch)
    {
        var value = Deployment(patch);

        Assert.Empty(GpuDeployments.Refusals(value));
        Assert.Empty(Validation.Validate(Read<GpuDeployment>(value)));
    }

    [Theory]
    [InlineData("NVIDIA-L40S", "NVIDIA-L40S", true)]
    [InlineData(null, "NVIDIA-L40S", true)]
    [InlineData(null, null, true)]
    [InlineData("NVIDIA-L40S", "NVIDIA-H100-80GB-HBM3", false)]
    [InlineData("NVIDIA-L40S", null, false)]
    public void Both_hold_a_product_fast_once_it_is_set(string? from, string? to, bool admitted)
    {
        var (before, after) = (Deployment(Product(from)), Deployment(Product(to)));

        var refusals = GpuDeployments.Refusals(after, before);
        var errors = Validation.ValidateUpdate(Read<GpuDeployment>(before), Read<GpuDeployment>(after));

        Assert.Equal(admitted ? [] : [".spec.gpu: product " + Messages.ProductIsImmutable], refusals);
        Assert.Equal(admitted ? [] : [new FieldError("spec.gpu.product", Messages.ProductIsImmutable)], errors);

        static string Product(string? product) =>
            product is null ? """{"spec": {"gpu": {} } }""" : $$"""{"spec": {"gpu": {"product": "{{product}}"} } }""";
    }

    [Theory]
    [InlineData("""{"spec": {"lowBalanceAlert": "-1"}}""")]
    [InlineData("""{"spec": {"lowBalanceAlert": "fifty"}}""")]
    [InlineData("""{"spec": {"cardGracePeriod": "1d"}}""")]
    [InlineData("""{"spec": {"cardGracePeriod": ""}}""")]
    [InlineData("""{"spec": {"cardGracePeriod": "1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h1h"}}""")]
    [InlineData("""{"spec": {"timeZone": "../../etc/passwd"}}""")]
    [InlineData("""{"spec": {"timeZone": ""}}""")]
    [InlineData("""{"metadata": {"name": "a234567890123456789012345678901234567890123456789012345678901234"}}""")]
    public void Both_refuse_a_bad_account(string patch)
    {
        var value = Patched(Account, patch);

        Assert.NotEmpty(BillingAccounts.Refusals(value));
        Assert.NotEmpty(Validation.Validate(Read<BillingAccount>(value)));
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("""{"spec": null}""")]
    [InlineData("""{"spec": {"lowBalanceAlert": "0", "cardGracePeriod": "0s", "timeZone": "America/Argentina/Buenos_Aires"}}""")]
    public void Both_admit_a_good_account(string patch)
    {
        var value = Patched(Account, patch);

        Assert.Empty(BillingAccounts.Refusals(value));
        Assert.Empty(Validation.Validate(Read<BillingAccount>(value)));
    }

    [Theory]
    [InlineData("""{"spec": {"gpus": [{"product": "A", "perHour": "1"}, {"product": "A", "perHour": "2"}]}}""")]
    [InlineData("""{"spec": {"gpus": [{"product": "A", "perHour": "-1"}]}}""")]
    [InlineData("""{"spec": {"gpus": [{"product": "A"}]}}""")]
    [InlineData("""{"spec": {"gpus": [{"product": "", "perHour": "1"}]}}""")]
    [InlineData("""{"spec": {"gpus": [{"perHour": "1"}]}}""")]
    [InlineData("""{"spec": {"serverless": [{"model": "m", "inputPerMillion": "1", "outputPerMillion": "1"}]}}""")]
    [InlineData("""{"spec": {"serverless": [{"model": "m n", "inputPerMillion": "1", "outputPerMillion": "1", "cachedPerMillion": "0"}]}}""")]
    public void Both_refuse_a_bad_price_book(string patch)
    {
        var value = Patched(Book, patch);

        Assert.NotEmpty(PriceBooks.Refusals(value));
        Assert.NotEmpty(Validation.Validate(Read<PriceBook>(value)));
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("""{"spec": null}""")]
    [InlineData("""{"spec": {"gpus": [{"product": "A", "perHour": "0"}, {"product": "a", "perHour": "2.5"}], "serverless": []}}""")]
    public void Both_admit_a_good_price_book(string patch)
    {
        var value = Patched(Book, patch);

        Assert.Empty(PriceBooks.Refusals(value));
        Assert.Empty(Validation.Validate(Read<PriceBook>(value)));
    }

    [Theory]
    [InlineData("""{"spec": {}}""")]
    [InlineData("""{"spec": {"replicas": 3, "gpu": {"count": 2}, "paused": true}}""")]
    public void The_schema_and_Defaulting_fill_the_same(string patch)
    {
        var value = Deployment(patch);
        var deployment = Read<GpuDeployment>(value);

        Defaulting.Apply(deployment);

        var expected = Read<GpuDeployment>(GpuDeployments.Defaulted(value));
        Assert.Equal(KubernetesJson.Serialize(expected), KubernetesJson.Serialize(deployment));
    }

    [Fact]
    public void The_schema_and_Defaulting_fill_the_same_in_an_account()
    {
        var value = Patched(Account, """{"spec": null}""");
        var account = Read<BillingAccount>(value);

        Defaulting.Apply(account);

        var expected = Read<BillingAccount>(BillingAccounts.Defaulted(value));
        Assert.Equal((expected.Spec.CardGracePeriod, expected.Spec.TimeZone), (account.Spec.CardGracePeriod, account.Spec.TimeZone));
    }

    public static TheoryData<string> Examples =>
        [.. Directory.GetFiles(Path.Combine(Repository.Root, "manifests/examples"), "*.yaml").Select(file => Path.GetFileName(file)).Order()];

    [Theory]
    [MemberData(nameof(Examples))]
    public void Every_example_is_admitted_by_both(string file)
    {
        foreach (var value in Yaml.Documents(Repository.Text($"manifests/examples/{file}")))
        {
            switch ((string)value["kind"]!)
            {
                case GpuDeployment.KubeKind:
                    Assert.Empty(GpuDeployments.Refusals(value));
                    Assert.Empty(Validation.Validate(Read<GpuDeployment>(value)));
                    break;
                case BillingAccount.KubeKind:
                    Assert.Empty(BillingAccounts.Refusals(value));
                    Assert.Empty(Validation.Validate(Read<BillingAccount>(value)));
                    break;
                case PriceBook.KubeKind:
                    Assert.Empty(PriceBooks.Refusals(value));
                    Assert.Empty(Validation.Validate(Read<PriceBook>(value)));
                    break;
                default:
                    Assert.Equal("Namespace", (string)value["kind"]!);
                    Assert.NotNull(value["metadata"]!["labels"]![WellKnown.AccountLabel]);
                    break;
            }
        }
    }

    private const string Account = """{"metadata": {"name": "acme"}, "spec": {"displayName": "Acme"}}""";
    private const string Book = """{"metadata": {"name": "list-prices"}, "spec": {}}""";

    private static JsonObject Deployment(string patch) => Patched(
        """{"metadata": {"name": "trainer"}, "spec": {"template": {"spec": {"containers": [{"name": "trainer", "image": "x"}]}}}}""", patch);

    private static T Read<T>(JsonObject value) => KubernetesJson.Deserialize<T>(value.ToJsonString());

    /// <summary>A JSON merge patch (RFC 7386), on a fresh copy.</summary>
    private static JsonObject Patched(string text, string patch)
    {
        var target = JsonNode.Parse(text)!.AsObject();
        Merge(target, JsonNode.Parse(patch)!.AsObject());
        return target;
    }

    private static void Merge(JsonObject target, JsonObject patch)
    {
        foreach (var (name, value) in patch)
        {
            if (value is null)
            {
                target.Remove(name);
            }
            else if (value is JsonObject inner && target[name] is JsonObject existing)
            {
                Merge(existing, inner);
            }
            else
            {
                target[name] = value.DeepClone();
            }
        }
    }
}
