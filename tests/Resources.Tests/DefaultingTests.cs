using k8s;
using k8s.Models;
using Tensormesh.Resources;

namespace Resources.Tests;

public sealed class DefaultingTests
{
    [Fact]
    public void An_empty_deployment_gets_one_replica_of_one_gpu_that_is_not_paused()
    {
        var deployment = KubernetesJson.Deserialize<GpuDeployment>("""{"spec":{"gpu":null,"template":null}}""");

        Defaulting.Apply(deployment);

        Assert.Equal(1, deployment.Spec.Replicas);
        Assert.Equal(1, deployment.Spec.Gpu.Count);
        Assert.False(deployment.Spec.Paused);
        Assert.NotNull(deployment.Spec.Template);
    }

    [Fact]
    public void What_was_asked_for_stays()
    {
        var deployment = KubernetesJson.Deserialize<GpuDeployment>("""{"spec":{"replicas":0,"paused":true,"gpu":{"count":0}}}""");

        Defaulting.Apply(deployment);

        Assert.Equal(0, deployment.Spec.Replicas);
        Assert.Equal(0, deployment.Spec.Gpu.Count);
        Assert.True(deployment.Spec.Paused);
    }

    [Fact]
    public void An_empty_account_gets_a_day_of_grace_utc_and_its_own_name()
    {
        var account = new BillingAccount { Metadata = new V1ObjectMeta { Name = "acme" }, Spec = null! };

        Defaulting.Apply(account);

        Assert.Equal(("24h", "UTC", "acme"), (account.Spec.CardGracePeriod, account.Spec.TimeZone, account.Spec.DisplayName));
        Assert.Empty(Validation.Validate(account));
    }

    [Fact]
    public void Defaulting_twice_changes_nothing_more()
    {
        var account = new BillingAccount { Spec = { CardGracePeriod = "0s", TimeZone = "Europe/Berlin", DisplayName = "Acme" } };
        Defaulting.Apply(account);
        var once = KubernetesJson.Serialize(account);

        Defaulting.Apply(account);

        Assert.Equal(once, KubernetesJson.Serialize(account));
        Assert.Equal("0s", account.Spec.CardGracePeriod);
    }
}
